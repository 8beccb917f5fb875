"""Group commit for notifications: one message at a time leaves a destination; what came meanwhile leaves together.

    request thread A   submit ─▶ leads: sends [A] ───────────▶ settles A, hands over ─▶ returns
    request thread B      submit ─▶ waits ...................▶ leads: sends [B C D] ─▶ settles B, C, D
    request thread C         submit ─▶ waits ..........................................▶ returns
    request thread D           submit ─▶ waits ........................................▶ returns

There is no background thread and no timer: every waiter is a request that the platform is handling, and the leader
is one of them. A waiter leaves by itself when its deadline passes while it is still queued. Final outcomes are
recorded by the leader, a message at a time; a release is recorded by the thread whose version it is.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from threading import Condition, Lock
from typing import Protocol

from herald.errors import StoreUnavailable, Undelivered
from herald.model import Claim, Outcome, PromptVersion, Reason, Settlement, Status
from herald.pacing import Backoff, Hold
from herald.ports import Channel, Clock, Courier, Ledger, Request, Ruling, Verdict

_log = logging.getLogger(__name__)

# After a 401, 403 or 404 nothing is asked for this long: 10,000 such answers in 10 minutes ban the address.
GONE_PAUSE_SECONDS = 60.0
_RECORD_RETRY_SECONDS = 0.5
# An outcome that is lost means a version that is sent again; the claim's lease outlives the deadline by as much.
RECORD_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Parcel:
    """One version for one channel, with the claim on it. `concludes`: no other channel is open after this one."""

    version: PromptVersion
    claim: Claim
    concludes: bool


class Destination(Protocol):
    """Where a version goes."""

    def submit(self, parcel: Parcel, deadline: float) -> Outcome:
        """Return what became of it, recorded in the ledger, not long after `deadline` (monotonic seconds)."""


class Muted:
    """A destination where nothing is sent: not production, or no webhook."""

    def __init__(self, reason: Reason, ledger: Ledger, clock: Clock) -> None:
        """Name the reason that goes on record."""
        self._reason, self._ledger, self._clock = reason, ledger, clock

    def submit(self, parcel: Parcel, deadline: float) -> Outcome:  # noqa: ARG002  nothing here takes time
        """Record the version as suppressed."""
        outcome = Outcome(status=Status.SUPPRESSED, reason=self._reason)
        self._ledger.settle(
            [Settlement(claim=parcel.claim, outcome=outcome, concludes=parcel.concludes)], self._clock.now()
        )
        return outcome


_Trouble = tuple[Reason, str | None]
_NO_TROUBLE: _Trouble = (Reason.DEADLINE, None)


@dataclass(eq=False)
class _Waiter:
    """A request thread and its version."""

    parcel: Parcel
    deadline: float
    turn: Condition
    group: int  # the most versions a message with this one may hold; shrinks while a rejected one is looked for
    attempts: int = 0
    trouble: _Trouble | None = None  # the last that this version's own message has met
    queued: bool = True
    outcome: Outcome | None = None

    def release(self, reason: Reason, detail: str | None, retry_after: float | None = None) -> None:
        """End without a final outcome."""
        self.finish(
            Outcome(
                status=Status.RELEASED,
                reason=reason,
                detail=detail,
                attempts=self.attempts,
                retry_after=retry_after,
            )
        )

    def finish(self, outcome: Outcome) -> None:
        """Wake the thread with its outcome."""
        self.outcome = outcome
        self.turn.notify()


@dataclass
class _Batch:
    """The versions of one message, in order of arrival; no request where rendering it failed."""

    waiters: list[_Waiter] = field(default_factory=list)
    request: Request | None = None
    trouble: str = ""


class Lane:
    """The queue in front of one destination (webhook and thread)."""

    def __init__(
        self,
        channel: Channel,
        courier: Courier,
        ledger: Ledger,
        clock: Clock,
        *,
        everywhere: Hold | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Take the parts; `everywhere` is the hold that all lanes of one vendor share."""
        self._channel = channel
        self._courier = courier
        self._ledger = ledger
        self._clock = clock
        self._everywhere = everywhere or Hold()
        self._backoff = backoff or Backoff()
        self._hold = Hold()
        self._gone_until = float("-inf")
        self._trouble = _NO_TROUBLE  # why the destination is let be: the last message's, until one is accepted
        self._lock = Lock()
        self._queue: deque[_Waiter] = deque()
        self._leader: _Waiter | None = None

    def submit(self, parcel: Parcel, deadline: float) -> Outcome:
        """Deliver a version, alone or with others; return when its outcome is known and recorded."""
        waiter = _Waiter(parcel, deadline, Condition(self._lock), self._channel.max_versions)
        self._enter(waiter)
        try:
            while batch := self._next_batch(waiter):
                self._deliver(batch)
        finally:
            self._leave(waiter)
        outcome = waiter.outcome or Outcome(status=Status.RELEASED, reason=Reason.INTERNAL_ERROR)
        if outcome.status is Status.RELEASED and outcome.reason is not Reason.STORE_UNAVAILABLE:
            self._record([waiter], outcome)
        return outcome

    def _enter(self, waiter: _Waiter) -> None:
        with self._lock:
            self._queue.append(waiter)
            if self._leader is None:
                self._leader = waiter

    def _leave(self, waiter: _Waiter) -> None:
        """Leave the queue, if still in it; a leader hands over to whoever has waited longest."""
        with self._lock:
            if waiter.queued:
                self._withdraw(waiter)
            if self._leader is waiter:
                self._leader = self._queue[0] if self._queue else None
                if self._leader:
                    self._leader.turn.notify()

    def _withdraw(self, waiter: _Waiter) -> None:
        """Take a waiter out of the queue, so that no leader can send it any more."""
        self._queue.remove(waiter)
        waiter.queued = False

    def _next_batch(self, waiter: _Waiter) -> _Batch | None:
        """Wait until `waiter` has its outcome (None), or leads and may send (what to send)."""
        with self._lock:
            while waiter.outcome is None:
                now = self._clock.monotonic()
                if waiter.queued and now < self._gone_until:
                    self._withdraw(waiter)
                    refused = "the webhook was refused a moment ago; see the failed deliveries"
                    waiter.release(Reason.WEBHOOK_GONE, refused, self._gone_until - now)
                elif waiter.queued and max(now, self._ready_at()) >= waiter.deadline:
                    self._withdraw(waiter)
                    pause = self._ready_at() - now
                    waiter.release(*(waiter.trouble or self._trouble), pause if pause > 0 else None)
                elif self._leader is not waiter:
                    self._clock.wait(waiter.turn, waiter.deadline - now if waiter.queued else None)
                elif (pause := self._ready_at() - now) > 0:
                    self._clock.wait(waiter.turn, pause)
                else:
                    return self._take()
        return None

    def _ready_at(self) -> float:
        return max(self._hold.until, self._everywhere.until)

    def _take(self) -> _Batch:
        """Take from the queue what fits into one message, first come first packed."""
        group = self._queue[0].group
        first = list(islice(takewhile(lambda waiter: waiter.group == group, self._queue), group))
        batch = _Batch()
        try:
            batch.request = self._channel.pack([waiter.parcel.version for waiter in first])
            count = len(batch.request.carries)
        except Exception as error:  # noqa: BLE001  a record that cannot be rendered must not stop the others
            batch.trouble = f"cannot be rendered ({type(error).__name__})"
            count = len(first)
        for _ in range(count):
            waiter = self._queue.popleft()
            waiter.queued = False
            batch.waiters.append(waiter)
        return batch

    def _deliver(self, batch: _Batch) -> None:
        """Send one message and settle its versions; none of them is left waiting, whatever happens."""
        try:
            self._follow(batch, self._send(batch))
        except BaseException as error:
            with self._lock:
                for waiter in batch.waiters:
                    if waiter.outcome is None and not waiter.queued:
                        waiter.release(Reason.INTERNAL_ERROR, type(error).__name__)
            raise

    def _send(self, batch: _Batch) -> Verdict:
        if batch.request is None:
            return Verdict(Ruling.REJECTED, Reason.REJECTED, batch.trouble)
        for waiter in batch.waiters:
            waiter.attempts += 1
        try:
            return self._channel.judge(self._courier.post(batch.request))
        except Undelivered as error:
            return Verdict(Ruling.RETRY, error.reason, error.detail)

    def _follow(self, batch: _Batch, verdict: Verdict) -> None:
        """Do what the verdict asks for."""
        now = self._clock.monotonic()
        trouble = (verdict.reason or Reason.SERVER_ERROR, verdict.detail)
        if verdict.pause is not None:
            (self._everywhere if verdict.everywhere else self._hold).extend(now + verdict.pause)
        match verdict.ruling:
            case Ruling.ACCEPTED:
                self._backoff.reset()
                self._trouble = _NO_TROUBLE
                self._finish(batch, Outcome(status=Status.SENT, message_id=verdict.message_id))
            case Ruling.REJECTED if len(batch.waiters) > 1:
                self._requeue(batch, trouble, group=(len(batch.waiters) + 1) // 2)
            case Ruling.REJECTED:
                self._finish(batch, Outcome(status=Status.FAILED, reason=verdict.reason, detail=verdict.detail))
            case Ruling.GONE:
                self._gone_until = now + GONE_PAUSE_SECONDS
                self._finish(batch, Outcome(status=Status.FAILED, reason=verdict.reason, detail=verdict.detail))
                self._wake_all()
            case Ruling.REROUTE:
                _log.warning(
                    "Discord thread is gone; the channel itself is used from now on", extra={"detail": verdict.detail}
                )
                self._channel = self._channel.fallback()
                self._requeue(batch, trouble)
            case Ruling.RETRY:
                self._trouble = trouble
                if verdict.pause is None:
                    self._hold.extend(now + self._backoff.next())
                self._requeue(batch, trouble)

    def _finish(self, batch: _Batch, outcome: Outcome) -> None:
        """Record the outcome of a whole message in one store call, then wake its threads."""
        recorded = self._record(batch.waiters, outcome)
        with self._lock:
            for waiter in batch.waiters:
                if recorded:
                    waiter.finish(outcome.model_copy(update={"attempts": waiter.attempts}))
                else:
                    waiter.release(Reason.STORE_UNAVAILABLE, f"{outcome.status}, but that could not be recorded")

    def _requeue(self, batch: _Batch, trouble: _Trouble, group: int | None = None) -> None:
        """Put a message's versions back at the head of the queue, in their order, and let the hopeless go."""
        with self._lock:
            for waiter in reversed(batch.waiters):
                waiter.queued = True
                waiter.group = group or waiter.group
                waiter.trouble = trouble
                self._queue.appendleft(waiter)
        self._wake_all()

    def _wake_all(self) -> None:
        """Let every waiter see what has changed; whose deadline comes before the lane is ready leaves."""
        with self._lock:
            for waiter in self._queue:
                waiter.turn.notify()

    def _record(self, waiters: Sequence[_Waiter], outcome: Outcome) -> bool:
        """Write outcomes; a store that does not answer is asked again until after the last deadline of the batch."""
        settlements = [
            Settlement(
                claim=waiter.parcel.claim,
                outcome=outcome.model_copy(update={"attempts": waiter.attempts}),
                concludes=waiter.parcel.concludes and outcome.status.is_final,
            )
            for waiter in waiters
        ]
        last = max(waiter.deadline for waiter in waiters) + RECORD_GRACE_SECONDS
        while True:
            try:
                self._ledger.settle(settlements, self._clock.now())
            except StoreUnavailable as error:
                if outcome.status is Status.RELEASED or self._clock.monotonic() + _RECORD_RETRY_SECONDS >= last:
                    _log.error("Outcome not recorded", extra={"outcome": outcome.status, "detail": str(error)})
                    return False
                self._pause(_RECORD_RETRY_SECONDS)
            else:
                return True

    def _pause(self, seconds: float) -> None:
        condition = Condition()
        with condition:
            self._clock.wait(condition, seconds)
