"""The relay: brings unannounced versions to the announce function, where there is no Eventarc. A class, and a program.

It looks at which versions are unannounced, and POSTs the created-event of each until that is acknowledged. So it is
reconcile too, run all the time: it keeps nothing that a restart could lose, and finds whatever no event has announced.

    python infra/local/relay.py --announce-url http://127.0.0.1:8081
"""

from __future__ import annotations

import argparse
import heapq
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

if __package__ in {None, ""}:  # run as a program
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[2] / "functions")]

from herald import wiring
from herald.errors import ConfigurationError, StoreUnavailable
from herald.events.local import TYPE
from herald.model import PromptVersion, VersionKey
from herald.stores.sqlite import SQLiteStore

_log = logging.getLogger("herald.relay")

POLL_SECONDS = 0.05
POLL_BILLED_SECONDS = 1.0  # Firestore bills a look that finds nothing as one read
BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 60.0
STORE_PAUSE_SECONDS = 5.0
CONNECT_SECONDS = 3.0
# The function holds an event for up to MAX_WAIT; a relay that gave up earlier would send it twice.
READ_SECONDS = 540.0
# As many as one announce function holds at once (its THREADS): one more would wait there, past any MAX_WAIT.
CONCURRENCY = 80
PAGE = 200
# No more versions than this are kept in mind; the others are found when these are announced.
MOST_IN_MIND = 1_000
# Each look begins so long before the last: a save may end later than another that began after it.
OVERLAP = timedelta(seconds=10)
# And every so often a look begins at the oldest: saves that took longer, versions that a person has reopened.
AFRESH_SECONDS = 60.0
# Longer than the function's worst: MAX_WAIT (10 s beside a relay), a request to Discord (13 s), a store that is slow.
GRACE_SECONDS = 30.0

Unannounced = Callable[[datetime, int, PromptVersion | None], list[PromptVersion]]


@dataclass
class _Errand:
    """One version on its way to the function. `due`: when it is sent (again); `done`: it was acknowledged."""

    version: PromptVersion
    due: float
    attempts: int = 0
    in_flight: bool = False
    done: bool = False


class Relay:
    """Brings versions from one store to one function, several at a time."""

    def __init__(
        self,
        unannounced: Unannounced,
        url: str,
        *,
        concurrency: int = CONCURRENCY,
        poll: float = POLL_SECONDS,
        older_than: float = 0.0,
    ) -> None:
        """Name both ends: a store's `unannounced`, and the function's URL.

        `concurrency`: how many events are on their way at once; `poll`: seconds between looks; `older_than`: only
        versions of at least so many seconds, where the store has events of its own and this is for those that fail.
        """
        self._unannounced = unannounced
        self._url = url
        self._concurrency = concurrency
        self._poll = poll
        self._older_than = timedelta(seconds=older_than)
        self._errands: dict[VersionKey, _Errand] = {}
        self._after: PromptVersion | None = None
        self._afresh_at = float("-inf")
        self._look_at = float("-inf")
        self._session = requests.Session()
        self._session.trust_env = False  # the function is a neighbour: no proxy, no .netrc
        self._session.mount("http://", HTTPAdapter(pool_maxsize=concurrency))

    def run(self, stop: threading.Event, grace: float = 0.0) -> int:
        """Relay until `stop` is set, then wait up to `grace` seconds for what is on its way; return how many are left.

        What is left is unannounced, or will turn out to be announced, at the next start.
        """
        while not stop.is_set():
            for errand in self._due():
                errand.in_flight = True
                threading.Thread(target=self._run, args=(errand,), daemon=True).start()
            stop.wait(self._poll)
        last = time.monotonic() + grace
        while self._in_flight() and time.monotonic() < last:
            time.sleep(POLL_SECONDS)
        return self._in_flight()

    def _in_flight(self) -> int:
        return sum(errand.in_flight for errand in self._errands.values())

    def _due(self) -> list[_Errand]:
        """Return what to send now, longest due first."""
        free = self._concurrency - self._in_flight()
        if free <= 0:
            return []
        now = time.monotonic()
        # An acknowledged version is left alone for a while, whatever the store says: it may be a look behind.
        self._errands = {key: each for key, each in self._errands.items() if not each.done or each.due > now}
        if now >= self._look_at:
            self._look(now)
        waiting = (each for each in self._errands.values() if not (each.in_flight or each.done) and each.due <= now)
        return heapq.nsmallest(free, waiting, key=lambda each: each.due)

    def _look(self, now: float) -> None:
        """Find one more page of unannounced versions; in a backlog, those that are known are not read again."""
        if sum(not each.done for each in self._errands.values()) >= MOST_IN_MIND:
            return
        if now >= self._afresh_at:
            self._after, self._afresh_at = None, now + AFRESH_SECONDS
        clock = datetime.now(UTC)
        try:
            found = self._unannounced(clock - self._older_than, PAGE, self._after)
        except StoreUnavailable as error:
            self._look_at = now + STORE_PAUSE_SECONDS
            _log.warning("The relay cannot read the store; it tries again", extra={"detail": str(error)})
            return
        for version in found:
            self._errands.setdefault(version.key, _Errand(version, now))
        passed = [version for version in found if version.created_at <= clock - self._older_than - OVERLAP]
        self._after = passed[-1] if passed else self._after

    def _run(self, errand: _Errand) -> None:
        try:
            is_done = self._acknowledged(errand.version)
            ceiling = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** min(errand.attempts, 10))
            pause = AFRESH_SECONDS if is_done else random.uniform(ceiling / 2, ceiling)
            errand.due, errand.attempts = time.monotonic() + pause, errand.attempts + 1
            errand.done = is_done  # last: from now on, `due` says until when it is left alone
        finally:
            errand.in_flight = False

    def _acknowledged(self, version: PromptVersion) -> bool:
        headers = {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": version.key.path,
            "ce-source": "/prompt-herald/relay",
            "ce-type": TYPE,
            "ce-subject": version.key.path,
            "ce-time": version.created_at.isoformat(),
        }
        body = version.model_dump_json().encode()
        try:
            answer = self._session.post(self._url, data=body, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS))
        except requests.RequestException as error:
            _log.warning(
                "The announce function cannot be reached; the version is sent again",
                extra={"agent": version.agent_type, "version": version.version_number, "error": type(error).__name__},
            )
            return False
        return answer.ok


def main() -> int:
    """Relay until SIGINT or SIGTERM; then finish what is on its way."""
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
    if _wait_for(arguments.announce_url, stop):
        store = wiring.store()
        poll = POLL_SECONDS if isinstance(store, SQLiteStore) else POLL_BILLED_SECONDS
        relay = Relay(store.unannounced, arguments.announce_url, poll=poll, older_than=arguments.older_than)
        left = relay.run(stop, arguments.grace)
        if left:
            _log.warning("The relay stops before some versions are announced", extra={"left": left})
    return 0


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
    parser.add_argument(
        "--grace", type=float, default=GRACE_SECONDS, help="seconds to finish what is on its way at a stop (default 30)"
    )
    parser.add_argument("--health-port", type=int, help="answer GET /health there")
    parser.add_argument(
        "--older-than", type=float, default=0.0, help="seconds; where the store has events of its own: relay the others"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
