"""Unannounced versions → announce. Events make announcements fast; this makes them certain.

Level-triggered: it looks at what is, not at what happened, so it can run at any time, twice, late, and beside events.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from herald.model import Announcement, Frozen, PromptVersion, Status
from herald.ports import Clock, VersionStore

_log = logging.getLogger(__name__)

PAGE = 200
# How many versions wait at once: two full messages, one on its way and one that gathers behind it.
WORKERS = 20


class Summary(Frozen):
    """What one run has come to, in versions.

    `left`: found, and still not announced. `complete`: False where the time was over before all had been found.
    """

    found: int = 0
    sent: int = 0
    suppressed: int = 0
    failed: int = 0
    left: int = 0
    complete: bool = True


class Reconciler:
    """Announces what no event has announced."""

    def __init__(
        self,
        store: VersionStore,
        announce: Callable[[PromptVersion, float], Announcement],
        clock: Clock,
        *,
        after: float,
        budget: float,
    ) -> None:
        """Take the parts; only versions older than `after` seconds count, and a run takes about `budget` seconds."""
        self._store = store
        self._announce = announce
        self._clock = clock
        self._after = after
        self._budget = budget

    def run(self, after: float | None = None) -> Summary:
        """Announce, oldest first, until none is left or the time is over. Raises StoreUnavailable.

        `after` replaces this reconciler's own, in seconds.
        """
        deadline = self._clock.monotonic() + self._budget
        counts: Counter[str] = Counter()
        for page in self._pages(self._after if after is None else after):
            if self._clock.monotonic() >= deadline:
                counts["incomplete"] += 1
                break
            for announcement in self._announce_all(page, deadline):
                counts.update(_kinds(announcement))
        summary = Summary(**{name: counts[name] for name in Summary.model_fields if name != "complete"})
        summary = summary.model_copy(update={"complete": not counts["incomplete"]})
        open_or_failed = summary.left or summary.failed or not summary.complete
        level = logging.WARNING if open_or_failed else logging.INFO if summary.found else logging.DEBUG
        _log.log(level, "Reconcile finished", extra=summary.model_dump())
        return summary

    def _pages(self, after: float) -> Iterator[list[PromptVersion]]:
        until = self._clock.now() - timedelta(seconds=after)
        last: PromptVersion | None = None
        while page := self._store.unannounced(until, PAGE, last):
            yield page
            last = page[-1]

    def _announce_all(self, page: Iterable[PromptVersion], deadline: float) -> Iterable[Announcement]:
        """Announce side by side, so that a lane can put several into one message."""
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(lambda version: self._announce_one(version, deadline), page))

    def _announce_one(self, version: PromptVersion, deadline: float) -> Announcement:
        if self._clock.monotonic() >= deadline:
            return Announcement(done=False)
        try:
            return self._announce(version, deadline)
        except Exception as error:  # noqa: BLE001  one version must not keep the others from being announced
            fields = {"agent": version.agent_type, "version": version.version_number, "error": type(error).__name__}
            _log.error("Reconcile could not announce a version; the next run tries again", extra=fields)
            return Announcement(done=False)


def _kinds(announcement: Announcement) -> Iterator[str]:
    """Name the counters that a version goes into; one that only lacked its mark is found, and nothing else."""
    yield "found"
    if not announcement.done:
        yield "left"
    elif Status.FAILED in announcement.reached:
        yield "failed"
    elif Status.SENT in announcement.reached:
        yield "sent"
    elif Status.SUPPRESSED in announcement.reached:
        yield "suppressed"
