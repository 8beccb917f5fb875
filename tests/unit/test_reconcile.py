"""What reconcile finds, does and says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from herald.model import Announcement, PromptVersion, Status
from herald.reconcile import PAGE, Reconciler, Summary
from tests.fakes import NOW, FakeClock, make_version

SENT = Announcement(done=True, reached=(Status.SENT,))
LEFT = Announcement(done=False)


class Backlog:
    """A store with versions that nobody has announced."""

    def __init__(self, count: int) -> None:
        self.versions = [make_version(number) for number in range(1, count + 1)]
        self.untils: list[datetime] = []

    def unannounced(self, until: datetime, limit: int, after: PromptVersion | None) -> list[PromptVersion]:
        self.untils.append(until)
        start = 0 if after is None else after.version_number
        return self.versions[start : start + limit]


def run(
    count: int,
    announce: Callable[[PromptVersion, float], Announcement],
    clock: FakeClock | None = None,
    backlog: Backlog | None = None,
) -> Summary:
    store = backlog or Backlog(count)
    return Reconciler(store, announce, clock or FakeClock(), after=300, budget=200).run()  # type: ignore[arg-type]


def test_the_summary_counts_versions_by_what_became_of_them() -> None:
    """A version with a failure is a failed one; one that only lacked its mark is found, and no more."""
    outcomes = {
        1: SENT,
        2: Announcement(done=True, reached=(Status.SENT, Status.FAILED)),
        3: Announcement(done=True, reached=(Status.SUPPRESSED,)),
        4: LEFT,
        5: Announcement(done=True),
    }
    summary = run(5, lambda version, _: outcomes[version.version_number])
    assert summary == Summary(found=5, sent=1, failed=1, suppressed=1, left=1, complete=True)


def test_a_backlog_of_many_pages_is_worked_off_once() -> None:
    """Also where nothing can be announced: a run ends."""
    seen: list[int] = []

    def announce(version: PromptVersion, _deadline: float) -> Announcement:
        seen.append(version.version_number)
        return LEFT

    assert run(2 * PAGE + 7, announce).left == 2 * PAGE + 7
    assert sorted(seen) == list(range(1, 2 * PAGE + 8))


def test_only_versions_that_had_their_time_are_looked_for(clock: FakeClock) -> None:
    """Their event may still be on its way."""
    backlog = Backlog(0)
    run(0, lambda *_: SENT, clock, backlog)
    assert (NOW - backlog.untils[0]).total_seconds() == 300


def test_a_run_ends_when_its_time_is_over(clock: FakeClock) -> None:
    """What was found and not reached is left; that there may be more is said."""
    lock = threading.Lock()

    def slow(_version: PromptVersion, deadline: float) -> Announcement:
        assert deadline == 1_200
        with lock:
            clock.advance(10)
        return SENT

    summary = run(3 * PAGE, slow, clock)
    assert summary.complete is False
    assert summary.found == PAGE
    assert summary.sent + summary.left == PAGE
    assert 20 <= summary.sent <= 40


def test_one_version_that_breaks_keeps_nobody_else() -> None:
    """It is left for the next run."""

    def announce(version: PromptVersion, _deadline: float) -> Announcement:
        if version.version_number == 2:
            raise ZeroDivisionError
        return SENT

    assert run(3, announce) == Summary(found=3, sent=2, left=1)
