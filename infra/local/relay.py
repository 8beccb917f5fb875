"""The relay: brings created-events from the store's outbox to the announce function, where there is no Eventarc.

At least once: an event stays in the outbox until the function answers 2xx, over restarts too.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import requests
from requests.adapters import HTTPAdapter

from herald.errors import StoreUnavailable
from herald.events.local import TYPE
from herald.stores.sqlite import Event

_log = logging.getLogger("herald.relay")

POLL_SECONDS = 0.05
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


class Relay:
    """Polls one outbox and POSTs to one function, several events at a time."""

    def __init__(self, outbox: Outbox, url: str, concurrency: int = CONCURRENCY) -> None:
        """Name both ends; `concurrency` is how many events are on their way at once."""
        self._outbox = outbox
        self._url = url
        self._concurrency = concurrency
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
            stop.wait(POLL_SECONDS)
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
