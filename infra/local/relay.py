"""The relay: brings unannounced versions to the announce function, where there is no Eventarc.

It looks at which versions are unannounced, and POSTs the created-event of each until that is acknowledged. So it is
reconcile too, run all the time: it keeps nothing that a restart could lose, and finds whatever no event has announced.
scripts/relay.py is its program.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from herald.errors import StoreUnavailable
from herald.events.local import TYPE
from herald.model import PromptVersion, VersionKey

_log = logging.getLogger("herald.relay")

POLL_SECONDS = 0.05
BACKOFF_BASE_SECONDS = 0.5
BACKOFF_CAP_SECONDS = 60.0
RETRY_AFTER_CAP_SECONDS = 60
STORE_PAUSE_SECONDS = 5.0
CONNECT_SECONDS = 3.0
# The function holds an event for up to MAX_WAIT; a relay that gave up earlier would send it twice.
READ_SECONDS = 540.0
# Fewer than one announce function holds at once (its THREADS): one more would wait there, past any MAX_WAIT, and the
# probes of /health need a thread, too.
CONCURRENCY = 40
PAGE = 200
# While so many are in mind and not announced, no more are looked for.
MOST_IN_MIND = 1_000
# Without `older_than`, the clock of whoever saved a version may be ahead of this one.
SKEW = timedelta(days=1)
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
        older_than: float | None = None,
    ) -> None:
        """Name both ends: a store's `unannounced`, and the function's URL.

        `concurrency`: how many events are on their way at once; `poll`: seconds between looks; `older_than`: only
        versions of at least so many seconds, where the store has events of its own and this is for those that fail.
        """
        self._unannounced = unannounced
        self._url = url
        self._concurrency = concurrency
        self._poll = poll
        self._older_than = -SKEW if older_than is None else timedelta(seconds=older_than)
        self._errands: dict[VersionKey, _Errand] = {}
        self._after: PromptVersion | None = None
        self._afresh_at = float("-inf")
        self._look_at = float("-inf")
        self._resume_at = float("-inf")
        self._session = neighbourly(concurrency)

    def run(self, stop: threading.Event, grace: float = GRACE_SECONDS) -> int:
        """Relay until `stop` is set, then wait up to `grace` seconds for what is on its way; return how many are left.

        What is left is unannounced, or will turn out to be announced, at the next start.
        """
        while not stop.is_set():
            for errand in self._due():
                if stop.is_set():  # a look may take long
                    break
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
        free, now = self._concurrency - self._in_flight(), time.monotonic()
        if free <= 0 or now < self._resume_at:
            return []
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
        until = datetime.now(UTC) - self._older_than
        try:
            found = self._unannounced(until, PAGE, self._after)
        except StoreUnavailable as error:
            self._look_at = now + STORE_PAUSE_SECONDS
            _log.warning("The relay cannot read the store; it tries again", extra={"detail": str(error)})
            return
        for version in found:
            self._errands.setdefault(version.key, _Errand(version, now))
        settled = min(until, datetime.now(UTC)) - OVERLAP
        passed = [version for version in found if version.created_at <= settled]
        self._after = passed[-1] if passed else self._after

    def _run(self, errand: _Errand) -> None:
        answer = None
        try:
            answer = self._post(errand.version)
        except requests.RequestException as error:
            message = "The announce function cannot be reached; the version is sent again"
            _log.warning(message, extra=_fields(errand.version, error))
        except Exception as error:  # noqa: BLE001  whatever it is, it must not come again at once, for ever
            _log.error("The relay could not send a version; it tries again", extra=_fields(errand.version, error))
        self._settle(errand, answer)
        errand.in_flight = False

    def _settle(self, errand: _Errand, answer: requests.Response | None) -> None:
        """Note what became of an errand, and until when it is left alone."""
        now, is_done = time.monotonic(), answer is not None and answer.ok
        if is_done:
            errand.due = now + AFRESH_SECONDS
        elif answer is not None and (seconds := answer.headers.get("Retry-After", "")).isdigit():
            # Discord is let be for so long. No version is brought until then: each would cost a claim, for nothing.
            self._resume_at = max(self._resume_at, now + min(int(seconds), RETRY_AFTER_CAP_SECONDS))
            errand.due = self._resume_at
        else:
            ceiling = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** min(errand.attempts, 10))
            errand.due = now + random.uniform(ceiling / 2, ceiling)
            errand.attempts += 1
        errand.done = is_done  # last: the main loop forgets what is done and due

    def _post(self, version: PromptVersion) -> requests.Response:
        """POST the event, in the structured mode of CloudEvents: a header could not hold every agent's name."""
        event = {
            "specversion": "1.0",
            "id": version.key.path,
            "source": "/prompt-herald/relay",
            "type": TYPE,
            "subject": version.key.path,
            "time": version.created_at.isoformat(),
            "datacontenttype": "application/json",
            "data": version.model_dump(mode="json"),
        }
        headers = {"Content-Type": "application/cloudevents+json"}
        return self._session.post(self._url, json=event, headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS))


def neighbourly(connections: int = 1) -> requests.Session:
    """Return a session for the function, which is a neighbour: no proxy, no .netrc."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_maxsize=connections))
    return session


def _fields(version: PromptVersion, error: Exception) -> dict[str, Any]:
    return {"agent": version.agent_type, "version": version.version_number, "error": type(error).__name__}
