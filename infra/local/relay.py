"""The relay: brings created-events to the announce function, where there is no Eventarc. A class, and a program.

At least once: an event stays in the outbox until the function answers 2xx, over restarts too. With SQLite the outbox
is a table that each save writes to; with Firestore it is the versions that are unannounced. Beside it, the program
runs reconcile now and then, as Cloud Scheduler does in the cloud.

    python infra/local/relay.py --announce-url http://127.0.0.1:8081
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter

if __package__ in {None, ""}:  # run as a program
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[2] / "functions")]

from herald import wiring
from herald.errors import ConfigurationError, StoreUnavailable
from herald.events.local import TYPE
from herald.model import PromptVersion
from herald.stores.sqlite import Event, SQLiteStore

_log = logging.getLogger("herald.relay")

POLL_SECONDS = 0.05
POLL_UNANNOUNCED_SECONDS = 1.0
RECONCILE_EVERY_SECONDS = 60.0
BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 60.0
CONNECT_SECONDS = 3.0
# The function holds an event for up to MAX_WAIT; a relay that gave up earlier would send it twice.
READ_SECONDS = 540.0
CONCURRENCY = 100


class Outbox(Protocol):
    """Where events wait. Its methods raise StoreUnavailable."""

    def due_events(self, now: datetime, limit: int) -> list[Event]:
        """Return up to `limit` events to send now, longest due first."""

    def event_delivered(self, event: Event) -> None:
        """Forget an event that was acknowledged."""

    def event_deferred(self, event: Event, until: datetime) -> None:
        """Keep an event that was not acknowledged, and make it due again at `until`."""


class Unannounced:
    """The outbox of a store that has none: its unannounced versions. Backoff is kept in memory."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._deferred: dict[int, tuple[datetime, int]] = {}

    def due_events(self, now: datetime, limit: int) -> list[Event]:
        """Return unannounced versions, oldest first, but for those that are to wait."""
        found = [self._event(version) for version in self._store.unannounced(now, limit + len(self._deferred), None)]
        self._deferred = {each.id: self._deferred[each.id] for each in found if each.id in self._deferred}
        return [each for each in found if each.id not in self._deferred or self._deferred[each.id][0] <= now][:limit]

    def event_delivered(self, event: Event) -> None:
        """Nothing: announce has marked the version."""

    def event_deferred(self, event: Event, until: datetime) -> None:
        """Leave the version alone until then."""
        self._deferred[event.id] = (until, event.attempts + 1)

    def _event(self, version: PromptVersion) -> Event:
        identity = hash(version.key)
        attempts = self._deferred.get(identity, (None, 0))[1]
        return Event(identity, version.key.path, version.model_dump_json(), version.created_at, attempts)


class Relay:
    """Polls one outbox and POSTs to one function, several events at a time."""

    def __init__(self, outbox: Outbox, url: str, concurrency: int = CONCURRENCY, poll: float = POLL_SECONDS) -> None:
        """Name both ends; `concurrency`: how many events are on their way at once; `poll`: seconds between looks."""
        self._outbox = outbox
        self._url = url
        self._concurrency = concurrency
        self._poll = poll
        self._in_flight: set[int] = set()
        self._session = requests.Session()
        self._session.trust_env = False  # the function is a neighbour: no proxy, no .netrc
        self._session.mount("http://", HTTPAdapter(pool_maxsize=concurrency))

    def run(self, stop: threading.Event, grace: float = 0.0) -> None:
        """Relay until `stop` is set, then wait up to `grace` seconds for what is on its way."""
        while not stop.is_set():
            for event in self._due():
                self._in_flight.add(event.id)
                # Daemon threads: what is still on its way when the process ends stays in the outbox.
                threading.Thread(target=self._relay, args=(event,), daemon=True).start()
            stop.wait(self._poll)
        last = time.monotonic() + grace
        while self._in_flight and time.monotonic() < last:
            time.sleep(POLL_SECONDS)

    def _due(self) -> list[Event]:
        free = self._concurrency - len(self._in_flight)
        if free <= 0:
            return []
        try:
            due = self._outbox.due_events(datetime.now(UTC), free + len(self._in_flight))
        except StoreUnavailable as error:
            _log.warning("The relay cannot read the outbox; it tries again", extra={"detail": str(error)})
            return []
        return [event for event in due if event.id not in self._in_flight][:free]

    def _relay(self, event: Event) -> None:
        try:
            if self._acknowledged(event):
                self._outbox.event_delivered(event)
            else:
                ceiling = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** min(event.attempts, 10))
                pause = timedelta(seconds=random.uniform(ceiling / 2, ceiling))
                self._outbox.event_deferred(event, datetime.now(UTC) + pause)
        except StoreUnavailable as error:
            _log.warning("The relay could not note an event's end; it is sent again", extra={"detail": str(error)})
        finally:
            self._in_flight.discard(event.id)

    def _acknowledged(self, event: Event) -> bool:
        headers = {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": event.subject,
            "ce-source": "/prompt-herald/outbox",
            "ce-type": TYPE,
            "ce-subject": event.subject,
            "ce-time": event.created_at.isoformat(),
        }
        try:
            answer = self._session.post(
                self._url, data=event.data.encode(), headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
        except requests.RequestException as error:
            _log.warning(
                "The announce function cannot be reached; the event is sent again",
                extra={"event_id": event.subject, "error": type(error).__name__},
            )
            return False
        return answer.ok


def main() -> int:
    """Relay, and reconcile now and then, until SIGINT or SIGTERM; then finish what is on its way."""
    arguments = _arguments()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        wiring.check()
    except ConfigurationError as error:
        print(f"prompt-herald: wrong configuration. {error}", file=sys.stderr)
        return 2
    if arguments.health_port is not None:
        _serve_health(arguments.health_port)
    every = (stop, arguments.reconcile_every)
    threading.Thread(target=_reconcile_now_and_then, args=every, daemon=True).start()
    if arguments.reconcile_only:
        stop.wait()
    elif _wait_for(arguments.announce_url, stop):
        _relay_to(arguments.announce_url).run(stop, arguments.grace)
    # What reconcile has claimed and cannot finish now is claimed until its lease ends, and then tried again.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _relay_to(url: str) -> Relay:
    store = wiring.store()
    if isinstance(store, SQLiteStore):
        return Relay(store, url)
    return Relay(Unannounced(store), url, poll=POLL_UNANNOUNCED_SECONDS)


def _wait_for(url: str, stop: threading.Event) -> bool:
    """Wait until the announce function answers, so that no event is spent on one that is starting."""
    is_said = False
    while not stop.is_set():
        try:
            requests.get(f"{url}/health", timeout=CONNECT_SECONDS)
        except requests.RequestException:
            if not is_said:
                _log.info("Waiting for the announce function", extra={"url": url})
            is_said = True
            stop.wait(0.2)
        else:
            return True
    return False


def _reconcile_now_and_then(stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        try:
            wiring.reconciler().run()
        except StoreUnavailable as error:
            _log.error("Store unavailable", extra={"detail": str(error)})


def _serve_health(port: int) -> None:
    """Answer GET with 200 for as long as this process runs."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent: a probe every few seconds is no news."""

    server = ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), port), Health)  # noqa: S104  for the kubelet
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--announce-url", default="http://127.0.0.1:8081", help="where the announce function listens")
    parser.add_argument("--grace", type=float, default=20.0, help="seconds to finish what is on its way at a stop")
    parser.add_argument("--health-port", type=int, help="answer GET /health there")
    parser.add_argument(
        "--reconcile-every", type=float, default=RECONCILE_EVERY_SECONDS, help="seconds between runs of reconcile"
    )
    parser.add_argument("--reconcile-only", action="store_true", help="relay nothing: the store's own events do")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
