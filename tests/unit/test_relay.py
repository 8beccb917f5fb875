"""The relay: at least once, with patience."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from herald.errors import StoreUnavailable
from herald.stores.sqlite import Event
from infra.local import relay
from infra.local.relay import Relay


@dataclass
class Outbox:
    """Events in memory; each is due at once."""

    events: dict[int, Event]
    delivered: list[int] = field(default_factory=list)
    deferred: list[float] = field(default_factory=list)  # for how many seconds
    failures: int = 0

    def due_events(self, now: datetime, limit: int) -> list[Event]:  # noqa: ARG002
        if self.failures:
            self.failures -= 1
            message = "locked"
            raise StoreUnavailable(message)
        return list(self.events.values())[:limit]

    def event_delivered(self, event: Event) -> None:
        self.events.pop(event.id, None)
        self.delivered.append(event.id)

    def event_deferred(self, event: Event, until: datetime) -> None:
        self.events[event.id] = event._replace(attempts=event.attempts + 1)
        self.deferred.append((until - datetime.now(UTC)).total_seconds())


@dataclass
class Function:
    """A function that answers as told, and keeps what it was sent."""

    url: str
    statuses: list[int]
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(*statuses: int, held: bool = False) -> Iterator[Function]:
    """Serve a function whose answers are `statuses`, the last one for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            served.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
            assert served.gate.wait(10)
            self.send_response(served.statuses.pop(0) if len(served.statuses) > 1 else served.statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Function(f"http://127.0.0.1:{server.server_port}", list(statuses))
    if not held:
        served.gate.set()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield served
    served.gate.set()
    server.shutdown()
    server.server_close()


def events(count: int) -> dict[int, Event]:
    return {n: Event(n, f"agents/eai/versions/{n:06d}", "{}", datetime.now(UTC), 0) for n in range(1, count + 1)}


@contextmanager
def running(outbox: Outbox, url: str, concurrency: int = 10, grace: float = 5.0) -> Iterator[Relay]:
    subject, stop = Relay(outbox, url, concurrency), threading.Event()
    thread = threading.Thread(target=subject.run, args=(stop, grace))
    thread.start()
    yield subject
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def until(condition: Any) -> None:
    for _ in range(1_000):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came to that")


def test_an_event_is_a_cloudevent_in_binary_mode() -> None:
    """Type, subject and content type as the announce function expects them."""
    outbox = Outbox(events(1))
    with serving(204) as function, running(outbox, function.url):
        until(lambda: outbox.delivered)
    headers, body = function.seen[0]
    assert headers["ce-type"] == "prompt-herald.version.created.v1"
    assert headers["ce-subject"] == "agents/eai/versions/000001"
    assert (headers["ce-specversion"], headers["content-type"], body) == ("1.0", "application/json", b"{}")


def test_an_event_is_sent_until_it_is_acknowledged() -> None:
    """Anything but a 2xx defers it, longer each time."""
    outbox = Outbox(events(1))
    with serving(503, 500, 404, 200) as function, running(outbox, function.url):
        until(lambda: outbox.delivered)
    assert len(outbox.deferred) == 3
    assert 0 < outbox.deferred[0] < outbox.deferred[1] < outbox.deferred[2]


def test_a_function_that_is_down_and_a_locked_outbox_lose_nothing() -> None:
    """The relay goes on."""
    outbox = Outbox(events(2), failures=2)
    with serving(200) as function:
        url = function.url
    with running(outbox, url):
        until(lambda: len(outbox.deferred) >= 2)
    assert outbox.delivered == []
    with serving(200) as function, running(outbox, function.url):
        until(lambda: len(outbox.delivered) == 2)


def test_no_more_than_its_concurrency_is_on_its_way_and_each_once() -> None:
    """An event that is on its way is not sent beside itself."""
    outbox = Outbox(events(7))
    with serving(200, held=True) as function, running(outbox, function.url, concurrency=3):
        until(lambda: len(function.seen) == 3)
        threading.Event().wait(3 * relay.POLL_SECONDS)
        assert len(function.seen) == 3
        function.gate.set()
        until(lambda: len(outbox.delivered) == 7)
    assert len(function.seen) == 7


def test_a_stop_waits_for_what_is_on_its_way() -> None:
    """Within the grace given; what it does not wait for stays in the outbox."""
    outbox = Outbox(events(1))
    with serving(200, held=True) as function:
        with running(outbox, function.url, grace=0.0):
            until(lambda: function.seen)
        assert outbox.delivered == []
        with running(outbox, function.url, grace=5.0):
            until(lambda: len(function.seen) == 2)
            function.gate.set()
        assert 1 in outbox.delivered
