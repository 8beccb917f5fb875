"""Group commit: what leaves together, what waits, what ends how."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from herald.channels.discord import DiscordChannel, Webhook
from herald.clock import SystemClock
from herald.errors import StoreUnavailable, Undelivered
from herald.lanes import GONE_PAUSE_SECONDS, Lane, Muted, Parcel
from herald.model import Claim, Delivery, Outcome, PromptVersion, Reason, Settlement, Status, Taken, VersionKey
from herald.pacing import Backoff, Hold
from herald.ports import Answer, Request
from tests.fakes import OK, WEBHOOK_URL, FakeClock, FakeCourier, answer, in_threads, make_version

CHANNEL = DiscordChannel(Webhook.parse(SecretStr(WEBHOOK_URL)), "production")
SERVER_ERROR = answer(502)
REJECTED = answer(400, {"code": 50035, "message": "Invalid Form Body"})


class MemoryLedger:
    """Keeps what was settled; fails the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[Sequence[Settlement]] = []
        self.failures = failures

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:  # noqa: ARG002
        if self.failures > 0:
            self.failures -= 1
            message = "disk full"
            raise StoreUnavailable(message)
        self.calls.append(settlements)

    def claim(self, key: VersionKey, channel: str, now: datetime, lease: timedelta) -> Claim | Taken:
        raise NotImplementedError

    def deliveries(self, key: VersionKey) -> list[Delivery]:
        raise NotImplementedError

    def deliveries_in(self, *_: Any) -> list[Delivery]:
        raise NotImplementedError

    def reopen(self, *_: Any) -> list[str]:
        raise NotImplementedError

    @property
    def statuses(self) -> dict[int, list[Status]]:
        """Every status that was written, by version number."""
        found: dict[int, list[Status]] = {}
        for settlement in (each for call in self.calls for each in call):
            found.setdefault(settlement.claim.key.number, []).append(settlement.outcome.status)
        return found


def parcel(number: int = 1, **changes: Any) -> Parcel:
    version = make_version(number, **changes)
    return Parcel(version, Claim(key=version.key, channel="discord", token="t"), concludes=True)


def lane(
    courier: Any,
    ledger: MemoryLedger | None = None,
    clock: Any = None,
    channel: Any = CHANNEL,
    hold: Hold | None = None,
) -> Lane:
    no_jitter = Backoff(lambda _low, high: high)
    return Lane(channel, courier, ledger or MemoryLedger(), clock or FakeClock(), everywhere=hold, backoff=no_jitter)


def test_one_version_leaves_alone_and_at_once(clock: FakeClock) -> None:
    """No timer delays a single upload, and its message id is recorded."""
    ledger, courier = MemoryLedger(), FakeCourier(OK)
    outcome = lane(courier, ledger, clock).submit(parcel(), clock.seconds + 240)
    assert outcome == Outcome(status=Status.SENT, message_id="555", attempts=1)
    assert clock.waits == []
    assert ledger.calls == [[Settlement(claim=parcel().claim, outcome=outcome, concludes=True)]]


def test_what_arrives_during_a_send_leaves_together() -> None:
    """While one message is on its way, the others gather; ten fill the next one."""
    started, go_on = threading.Event(), threading.Event()

    def slow(_request: Request) -> Answer:
        started.set()
        assert go_on.wait(10)
        return OK

    courier, ledger = FakeCourier(slow), MemoryLedger()
    subject = lane(courier, ledger, SystemClock())
    threads = [threading.Thread(target=subject.submit, args=(parcel(n), time.monotonic() + 30)) for n in range(1, 13)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    _until(lambda: len(subject._queue) == 11)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert [len(batch) for batch in courier.carried] == [1, 10, 1]
    assert all(batch == sorted(batch) for batch in courier.carried)
    assert [len(call) for call in ledger.calls] == [1, 10, 1]


def test_the_headers_pace_the_next_message(clock: FakeClock) -> None:
    """No request is sent that the headers say will be refused."""
    spent = answer(200, {"id": "1"}, x_ratelimit_remaining="0", x_ratelimit_reset_after="1.5")
    subject = lane(FakeCourier(spent, OK), clock=clock)
    subject.submit(parcel(1), clock.seconds + 240)
    subject.submit(parcel(2), clock.seconds + 240)
    assert clock.waits == [1.5]


def test_a_429_waits_as_long_as_it_says_and_goes_on(clock: FakeClock) -> None:
    """The version is sent by the second request."""
    courier = FakeCourier(answer(429, {"retry_after": 2.25, "global": False}), OK)
    outcome = lane(courier, clock=clock).submit(parcel(), clock.seconds + 240)
    assert (outcome.status, outcome.attempts, clock.waits) == (Status.SENT, 2, [2.25])


def test_a_429_longer_than_the_time_left_releases_at_once(clock: FakeClock) -> None:
    """The event source sends it again; nobody is held for nothing."""
    courier = FakeCourier(answer(429, {"retry_after": 600.0}))
    subject = lane(courier, clock=clock)
    outcome = subject.submit(parcel(), clock.seconds + 240)
    assert (outcome.status, outcome.reason, clock.waits) == (Status.RELEASED, Reason.RATE_LIMITED, [])
    assert outcome.retry_after is not None
    assert subject.submit(parcel(2), clock.seconds + 240).status is Status.RELEASED
    assert len(courier.requests) == 1


def test_a_global_429_stops_every_lane(clock: FakeClock) -> None:
    """Another webhook of the same vendor waits, too."""
    everywhere = Hold()
    first = lane(FakeCourier(answer(429, {"retry_after": 3.0, "global": True}), OK), clock=clock, hold=everywhere)
    first.submit(parcel(), clock.seconds + 1)
    second = lane(FakeCourier(OK), clock=clock, hold=everywhere)
    assert second.submit(parcel(2), clock.seconds + 240).status is Status.SENT
    assert clock.waits == [3.0]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (SERVER_ERROR, Reason.SERVER_ERROR),
        (Undelivered(Reason.TIMEOUT, "no answer"), Reason.TIMEOUT),
        (Undelivered(Reason.UNREACHABLE, "refused"), Reason.UNREACHABLE),
    ],
)
def test_transient_trouble_is_retried_with_growing_pauses(clock: FakeClock, trouble: Any, reason: Reason) -> None:
    """Until it is sent; or until the deadline, when it is released with what was wrong."""
    sent = lane(FakeCourier(trouble, trouble, trouble, OK), clock=clock).submit(parcel(), clock.seconds + 240)
    assert (sent.status, sent.attempts, clock.waits) == (Status.SENT, 4, [0.5, 1.0, 2.0])
    ledger = MemoryLedger()
    released = lane(FakeCourier(trouble), ledger, clock).submit(parcel(), clock.seconds + 10)
    assert (released.status, released.reason) == (Status.RELEASED, reason)
    assert ledger.statuses == {1: [Status.RELEASED]}


def test_who_cannot_wait_for_the_pause_after_a_failure_is_told_of_the_failure(clock: FakeClock) -> None:
    """An operator reads that Discord cannot be reached, not that a burst is being worked off."""
    subject = lane(FakeCourier(Undelivered(Reason.UNREACHABLE, "refused"), OK), clock=clock)
    subject.submit(parcel(1), clock.seconds + 0.1)
    outcome = subject.submit(parcel(2), clock.seconds + 0.1)
    assert (outcome.status, outcome.reason, outcome.attempts) == (Status.RELEASED, Reason.UNREACHABLE, 0)
    assert outcome.retry_after == 0.5
    assert subject.submit(parcel(3), clock.seconds + 240).status is Status.SENT
    subject._hold.extend(clock.seconds + 5)
    assert subject.submit(parcel(4), clock.seconds + 1).reason is Reason.DEADLINE


def test_a_rejected_version_does_not_take_others_with_it() -> None:
    """The batch is split until the bad one stands alone; it fails with Discord's own words."""

    def judge(request: Request) -> Answer:
        return REJECTED if any(key.number == 7 for key in request.carries) else OK

    gathered = Gathering(judge)
    outcomes = gathered.submit([parcel(n) for n in range(1, 11)])
    assert [o.status for o in outcomes].count(Status.SENT) == 9
    assert outcomes[6].status is Status.FAILED
    assert outcomes[6].reason is Reason.REJECTED
    assert "Invalid Form Body" in (outcomes[6].detail or "")
    assert len(gathered.courier.requests) <= 10


def test_a_version_that_cannot_be_rendered_fails_alone() -> None:
    """A bug in rendering is a failed delivery, not a stuck lane."""

    class Fragile:
        name, max_versions = "discord", 10

        def pack(self, versions: Sequence[PromptVersion]) -> Request:
            if any(version.version_number == 2 for version in versions):
                raise KeyError
            return CHANNEL.pack(versions)

        judge, fallback = staticmethod(CHANNEL.judge), staticmethod(CHANNEL.fallback)

    outcomes = Gathering(lambda _request: OK, Fragile()).submit([parcel(n) for n in (1, 2, 3)])
    assert [outcome.status for outcome in outcomes] == [Status.SENT, Status.FAILED, Status.SENT]
    assert "cannot be rendered" in (outcomes[1].detail or "")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_gone_webhook_fails_and_the_lane_stops_asking_for_a_while(clock: FakeClock, status: int) -> None:
    """Discord bans an address that keeps asking; what comes meanwhile is released, not failed."""
    courier = FakeCourier(answer(status, {"code": 10015, "message": "Unknown Webhook"}), OK)
    subject = lane(courier, clock=clock)
    failed = subject.submit(parcel(1), clock.seconds + 240)
    assert (failed.status, failed.reason) == (Status.FAILED, Reason.WEBHOOK_GONE)
    released = subject.submit(parcel(2), clock.seconds + 240)
    assert (released.status, released.reason, len(courier.requests)) == (Status.RELEASED, Reason.WEBHOOK_GONE, 1)
    clock.advance(GONE_PAUSE_SECONDS)
    assert subject.submit(parcel(2), clock.seconds + 240).status is Status.SENT


def test_an_archived_thread_falls_back_to_the_channel_where_that_is_wanted(clock: FakeClock) -> None:
    """The same version is sent again, without the thread; later ones go there directly."""
    threaded = replace(CHANNEL, webhook=replace(CHANNEL.webhook, thread_id="9"), thread_fallback=True)
    courier = FakeCourier(answer(400, {"code": 50083, "message": "Thread is archived"}), OK)
    subject = lane(courier, clock=clock, channel=threaded)
    assert subject.submit(parcel(1), clock.seconds + 240).status is Status.SENT
    assert subject.submit(parcel(2), clock.seconds + 240).status is Status.SENT
    assert ["thread_id=9" in r.url.get_secret_value() for r in courier.requests] == [True, False, False]


def test_an_outcome_is_recorded_although_the_store_is_away_for_a_moment(clock: FakeClock) -> None:
    """A sent version must not be sent again because its record failed once."""
    ledger = MemoryLedger(failures=2)
    assert lane(FakeCourier(OK), ledger, clock).submit(parcel(), clock.seconds + 240).status is Status.SENT
    assert ledger.statuses == {1: [Status.SENT]}


def test_a_store_that_stays_away_ends_in_a_retry(clock: FakeClock) -> None:
    """The lease stays: nobody sends it again before it ends."""
    ledger = MemoryLedger(failures=10_000)
    outcome = lane(FakeCourier(OK), ledger, clock).submit(parcel(), clock.seconds + 10)
    assert (outcome.status, outcome.reason) == (Status.RELEASED, Reason.STORE_UNAVAILABLE)
    assert ledger.calls == []


def test_an_unforeseen_error_leaves_nobody_waiting(clock: FakeClock) -> None:
    """Its version is released, and the lane goes on with the next."""

    def explode(_request: Request) -> Answer:
        raise RuntimeError

    ledger = MemoryLedger()
    subject = lane(FakeCourier(explode, OK), ledger, clock)
    with pytest.raises(RuntimeError):
        subject.submit(parcel(1), clock.seconds + 240)
    assert subject.submit(parcel(2), clock.seconds + 240).status is Status.SENT


def test_a_muted_destination_records_why(clock: FakeClock) -> None:
    """Nothing is sent; the version is final and concluded."""
    ledger = MemoryLedger()
    outcome = Muted(Reason.NOT_PRODUCTION, ledger, clock).submit(parcel(), clock.seconds)
    assert (outcome.status, outcome.reason) == (Status.SUPPRESSED, Reason.NOT_PRODUCTION)
    assert ledger.calls[0][0].concludes


@pytest.mark.parametrize("seed", range(5))
def test_stress_loses_nothing_and_sends_nothing_twice(seed: int) -> None:
    """Threads, random latencies, faults and short deadlines: every version ends once, and truly."""
    source = random.Random(seed)
    accepted: Counter[int] = Counter()

    def discord(request: Request) -> Answer:
        time.sleep(source.uniform(0, 0.004))
        trouble = source.random()
        if trouble < 0.1:
            return answer(429, {"retry_after": 0.003})
        if trouble < 0.2:
            return SERVER_ERROR
        if any(key.number % 97 == 0 for key in request.carries):
            return REJECTED
        accepted.update(key.number for key in request.carries)
        return OK

    ledger = MemoryLedger()
    backoff = Backoff(lambda _low, _high: source.uniform(0, 0.003))
    subject = Lane(CHANNEL, FakeCourier(discord), ledger, SystemClock(), backoff=backoff)

    def submit(number: int) -> Outcome:
        time.sleep(source.uniform(0, 0.1))
        return subject.submit(parcel(number), time.monotonic() + source.choice((0.002, 0.05, 30.0)))

    outcomes = in_threads([lambda number=number: submit(number) for number in range(1, 301)])  # type: ignore[misc]
    sent = {number for number, outcome in enumerate(outcomes, 1) if outcome.status is Status.SENT}
    assert accepted == Counter(sent)
    assert set(ledger.statuses) == set(range(1, 301))
    assert all(len(written) == 1 for written in ledger.statuses.values())
    assert {n for n, o in enumerate(outcomes, 1) if o.status is Status.FAILED} <= {97, 194, 291}
    assert subject._leader is None
    assert not subject._queue


class Gathering:
    """A lane whose first message is held back until the others have gathered behind it."""

    def __init__(self, respond: Any, channel: Any = CHANNEL) -> None:
        self.go_on = threading.Event()
        self.courier = FakeCourier(self._first, respond)
        self.lane = lane(self.courier, clock=SystemClock(), channel=channel)

    def _first(self, _request: Request) -> Answer:
        assert self.go_on.wait(10)
        return OK

    def submit(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Submit parcels so that they leave together; return their outcomes."""
        threading.Thread(target=self._submit, args=(parcel(1_000),), daemon=True).start()
        _until(lambda: bool(self.courier.requests))
        outcomes: dict[int, Outcome] = {}
        threads = []
        for index, each in enumerate(parcels):
            threads.append(threading.Thread(target=lambda i=index, p=each: outcomes.update({i: self._submit(p)})))
            threads[-1].start()
            _until(lambda n=index: len(self.lane._queue) == n + 1)
        self.go_on.set()
        for thread in threads:
            thread.join(10)
        return [outcomes[index] for index in range(len(parcels))]

    def _submit(self, each: Parcel) -> Outcome:
        return self.lane.submit(each, time.monotonic() + 30)


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)
