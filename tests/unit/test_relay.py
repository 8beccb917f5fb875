"""The relay: at least once, with patience."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from herald.errors import StoreUnavailable
from herald.events import local
from herald.model import PromptVersion, VersionKey
from herald.stores.sqlite import SQLiteStore
from infra.local import relay
from infra.local.relay import Relay
from tests.fakes import make_upload

POLL = 0.005


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """Give an empty store."""
    sqlite = SQLiteStore(str(tmp_path / "herald.db"))
    yield sqlite
    sqlite.close()


@dataclass
class Function:
    """A function that marks as announced what it answers 2xx, and keeps what it was sent."""

    url: str
    statuses: list[int]
    marks: bool
    seen: list[tuple[dict[str, str], PromptVersion, float]] = field(default_factory=list)  # event, its data, when
    answered: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    retry_after: str | None = None

    @property
    def numbers(self) -> list[int]:
        """The version numbers it was sent."""
        return [version.version_number for _, version, _ in self.seen]


@contextmanager
def serving(store: SQLiteStore, *statuses: int, held: bool = False, marks: bool = True) -> Iterator[Function]:
    """Serve a function whose answers are `statuses`, the last one for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            version = PromptVersion.model_validate(event["data"])
            event["data"] = self.headers["Content-Type"]
            served.seen.append((event, version, time.monotonic()))
            assert served.gate.wait(10)
            status = served.statuses.pop(0) if len(served.statuses) > 1 else served.statuses[0]
            if status < 300 and served.marks:
                store.mark_announced(version.key)
            served.answered.append(status)
            self.send_response(status)
            if served.retry_after and status == 503:
                self.send_header("Retry-After", served.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Function(f"http://127.0.0.1:{server.server_port}", list(statuses), marks)
    if not held:
        served.gate.set()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield served
    served.gate.set()
    server.shutdown()
    server.server_close()


def saved(store: SQLiteStore, count: int = 1) -> list[PromptVersion]:
    return [store.save(make_upload(created_at=datetime.now(UTC)), None) for _ in range(count)]


def is_announced(store: SQLiteStore, count: int) -> bool:
    announced = [each for each in store.versions("eai", 10_000, None) if each.announced]
    return len(announced) == count


@contextmanager
def running(unannounced: relay.Unannounced, url: str, grace: float = 5.0, **options: Any) -> Iterator[list[int]]:
    """Run a relay; at the end, the list given holds what it returned."""
    subject, stop = Relay(unannounced, url, poll=POLL, **options), threading.Event()
    left: list[int] = []
    thread = threading.Thread(target=lambda: left.append(subject.run(stop, grace)))
    thread.start()
    try:
        yield left
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    for _ in range(1_000):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came to that")


def test_an_event_is_a_structured_cloudevent(store: SQLiteStore) -> None:
    """As announce reads it, whatever the agent is called."""
    version = store.save(make_upload("支援", created_at=datetime.now(UTC)), None)
    with serving(store, 204) as function, running(store.unannounced, function.url):
        until(lambda: function.answered)
    event, data, _ = function.seen[0]
    assert event.pop("data") == "application/cloudevents+json"
    assert data == version
    assert event["subject"] == event["id"] == "agents/支援/versions/000001"
    assert (event["specversion"], event["type"]) == ("1.0", "prompt-herald.version.created.v1")
    assert local.decode(event, data.model_dump()) == version


def test_an_event_is_sent_until_it_is_acknowledged_later_each_time(store: SQLiteStore) -> None:
    """Anything but a 2xx brings it again, and then no more."""
    saved(store)
    with serving(store, 503, 500, 404, 200) as function, running(store.unannounced, function.url):
        until(lambda: is_announced(store, 1))
        threading.Event().wait(20 * POLL)
    assert function.answered == [503, 500, 404, 200]
    times = [at for _, _, at in function.seen]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert relay.BACKOFF_BASE_SECONDS / 2 <= pauses[0] < pauses[2]  # neighbours may touch


def test_no_version_is_sent_before_the_time_that_the_function_names(store: SQLiteStore) -> None:
    """While Discord is let be, each event would cost the ledger a claim, for nothing."""
    saved(store)
    with serving(store, 503, 200) as function, running(store.unannounced, function.url):
        function.retry_after = "1"
        until(lambda: function.answered)
        saved(store, 3)
        until(lambda: is_announced(store, 4))
    assert function.answered == [503, 200, 200, 200, 200]
    times = [at for _, _, at in function.seen]
    assert times[1] - times[0] >= 1


def test_a_function_that_is_down_and_a_store_that_does_not_answer_lose_nothing(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay goes on; its lines name the version, and what is the matter."""
    monkeypatch.setattr(relay, "STORE_PAUSE_SECONDS", 0.01)
    saved(store, 2)
    failures = ["locked", "locked"]

    def unannounced(*arguments: Any) -> list[PromptVersion]:
        if failures:
            raise StoreUnavailable(failures.pop())
        return store.unannounced(*arguments)

    with serving(store, 200) as function:
        url = function.url
    with running(unannounced, url):
        until(lambda: "cannot be reached" in caplog.text)
    assert caplog.text.count("The relay cannot read the store; it tries again") == 2
    assert {vars(line)["version"] for line in caplog.records if "cannot be reached" in line.message} == {1, 2}
    with serving(store, 200) as function, running(store.unannounced, function.url):
        until(lambda: is_announced(store, 2))


def test_no_more_than_its_concurrency_is_on_its_way_and_each_once(store: SQLiteStore) -> None:
    """An event that is on its way is not sent beside itself."""
    saved(store, 7)
    with serving(store, 200, held=True) as function, running(store.unannounced, function.url, concurrency=3):
        until(lambda: len(function.seen) == 3)
        threading.Event().wait(20 * POLL)
        assert sorted(function.numbers) == [1, 2, 3]
        function.gate.set()
        until(lambda: is_announced(store, 7))
    assert sorted(function.numbers) == [1, 2, 3, 4, 5, 6, 7]


def test_a_backlog_of_any_size_is_worked_off(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although only so many are looked at, and kept in mind, at once."""
    monkeypatch.setattr(relay, "PAGE", 7)
    monkeypatch.setattr(relay, "MOST_IN_MIND", 20)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    for number in range(60):
        store.save(make_upload(created_at=long_ago + timedelta(seconds=number)), None)
    read: set[VersionKey] = set()

    def unannounced(*arguments: Any) -> list[PromptVersion]:
        found = store.unannounced(*arguments)
        read.update(version.key for version in found)
        return found

    with serving(store, 503) as function, running(unannounced, function.url, concurrency=5):
        until(lambda: len(read) >= 20)
        threading.Event().wait(20 * POLL)
        assert len(read) <= 20 + 7
        function.statuses[:] = [200]
        until(lambda: is_announced(store, 60))
    assert set(function.numbers) == set(range(1, 61))


def test_a_backlog_that_waits_is_not_read_at_every_look(store: SQLiteStore) -> None:
    """While nothing can be announced, a look finds what is new: Firestore bills each document that it reads."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    for _ in range(30):
        store.save(make_upload(created_at=long_ago), None)
    read: list[list[PromptVersion]] = []

    def unannounced(*arguments: Any) -> list[PromptVersion]:
        read.append(store.unannounced(*arguments))
        return read[-1]

    with serving(store, 503) as function, running(unannounced, function.url):
        until(lambda: len(read) > 20)
        saved(store)
        until(lambda: 31 in function.numbers)
    assert [len(page) for page in read[:20]] == [30] + [0] * 19


@pytest.mark.parametrize(
    ("before", "then", "afresh"),
    [
        (0, 5, 60.0),  # a save that took long, or a clock that is behind: within the overlap of two looks
        (20, 3_600, 0.2),  # a version that a person has reopened: by a look from the oldest on
        (20, -3_600, 60.0),  # a clock that is ahead
    ],
)
def test_a_version_that_comes_out_of_order_is_found(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, before: int, then: int, afresh: float
) -> None:
    """Though every look begins about where the last one was; ages are in seconds."""
    monkeypatch.setattr(relay, "AFRESH_SECONDS", afresh)
    now = datetime.now(UTC)
    store.save(make_upload(created_at=now - timedelta(seconds=before)), None)
    looks: list[PromptVersion | None] = []

    def unannounced(until: datetime, limit: int, after: PromptVersion | None) -> list[PromptVersion]:
        looks.append(after)
        return store.unannounced(until, limit, after)

    with serving(store, 200) as function, running(unannounced, function.url):
        until(lambda: is_announced(store, 1))
        seen = len(looks)
        until(lambda: len(looks) > seen + 3)
        store.save(make_upload(created_at=now - timedelta(seconds=then)), None)
        until(lambda: is_announced(store, 2))
    assert function.numbers == [1, 2]


class Odd(PromptVersion):
    """A version that cannot be written down."""

    def model_dump(self, **_: Any) -> dict[str, Any]:
        message = "odd"
        raise ValueError(message)


def test_a_version_that_cannot_be_sent_is_no_hot_loop(store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again with patience, the line names it, and the others are sent."""
    odd, version = Odd(**saved(store)[0].model_dump()), saved(store)[0]
    with serving(store, 200) as function, running(lambda *_: [odd, version], function.url):
        until(lambda: function.answered and caplog.records)
        threading.Event().wait(20 * POLL)
    assert function.numbers == [2]
    assert [(vars(line)["version"], vars(line)["error"]) for line in caplog.records] == [(1, "ValueError")]


def test_what_is_acknowledged_but_not_announced_comes_again_only_after_a_while(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that announce cannot read is no hot loop, and is not forgotten either."""
    monkeypatch.setattr(relay, "AFRESH_SECONDS", 0.5)
    saved(store)
    with serving(store, 204, marks=False) as function, running(store.unannounced, function.url):
        until(lambda: len(function.seen) == 2)
    first, second = (at for _, _, at in function.seen)
    assert second - first >= 0.5


def test_where_the_store_has_events_of_its_own_the_young_are_left_to_them(store: SQLiteStore) -> None:
    """The relay brings what they have not announced by then."""
    store.save(make_upload(created_at=datetime.now(UTC) - timedelta(seconds=30)), None)
    saved(store)
    with serving(store, 200) as function, running(store.unannounced, function.url, older_than=20.0):
        until(lambda: function.answered)
        threading.Event().wait(20 * POLL)
    assert function.numbers == [1]
    assert store.version(VersionKey("eai", 2)) in store.unannounced(datetime.now(UTC), 9, None)


def test_a_stop_waits_for_what_is_on_its_way_and_tells_what_it_leaves(store: SQLiteStore) -> None:
    """Within the grace given; the rest is found at the next start."""
    saved(store)
    with serving(store, 200, held=True) as function:
        with running(store.unannounced, function.url, grace=0.0) as left:
            until(lambda: function.seen)
        assert left == [1]
        assert function.answered == []
        with running(store.unannounced, function.url, grace=5.0) as left:
            until(lambda: len(function.seen) == 2)
            threading.Timer(0.2, function.gate.set).start()
        assert left == [0]
        assert function.answered


def test_nothing_is_sent_after_the_stop(store: SQLiteStore) -> None:
    """Though it comes while the store is being read."""
    saved(store)
    stop = threading.Event()

    def unannounced(*arguments: Any) -> list[PromptVersion]:
        stop.set()
        return store.unannounced(*arguments)

    with serving(store, 200) as function:
        assert Relay(unannounced, function.url).run(stop) == 0
        assert function.seen == []
