"""Store operations and time of an upload and of an announcement, with few and with many versions stored."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from statistics import median
from typing import TypeVar

from herald.model import Claim, Outcome, PromptVersion, Settlement, Status
from herald.stores.sqlite import SQLiteStore
from tests.benchmarks.rows import Row
from tests.fakes import NOW, make_upload

T = TypeVar("T")

STORED = (10, 1_000, 100_000)
SAMPLES = 300
# Medians of fsyncs on a shared disk.
NOISE = 1.5


def measure() -> Iterator[Row]:
    """Measure at each size; the first one is what the others are compared with."""
    first: dict[str, float] = {}
    for size in STORED:
        with tempfile.TemporaryDirectory() as folder:
            store = SQLiteStore(f"{folder}/herald.db")
            _fill(store, size)
            operations, upload, announce = _sample(store)
            store.close()
        case = f"{size:,} versions stored"
        base = first.setdefault("operations", operations)
        yield Row("store", case, "statements an announcement", operations, "", f"{base:g}", operations == base)
        for name, seconds in (("upload", upload), ("announcement", announce)):
            ratio = seconds / first.setdefault(name, seconds)
            yield Row("store", case, f"{name}, p50", round(seconds * 1_000, 3), "ms")
            if size != STORED[0]:
                yield Row(
                    "store", case, f"{name} : at {STORED[0]}", round(ratio, 2), "x", f"{NOISE} at most", ratio <= NOISE
                )


def _sample(store: SQLiteStore) -> tuple[int, float, float]:
    """Return the statements of one announcement, and the median seconds of uploads and of announcements."""
    statements: list[str] = []
    uploads, announcements = [], []
    for _ in range(SAMPLES):
        seconds, version = _timed(lambda: store.save(make_upload(), None))
        uploads.append(seconds)
        announcements.append(_timed(lambda version=version: _announce(store, version))[0])  # type: ignore[misc]
    version = store.save(make_upload(), None)
    assert store._connection
    store._connection.set_trace_callback(statements.append)
    _announce(store, version)
    store._connection.set_trace_callback(None)
    counted = [each for each in statements if each not in {"BEGIN IMMEDIATE", "COMMIT"}]
    return len(counted), median(uploads), median(announcements)


def _announce(store: SQLiteStore, version: PromptVersion) -> None:
    claim = store.claim(version.key, "discord", NOW, timedelta(minutes=5))
    assert isinstance(claim, Claim)
    outcome = Outcome(status=Status.SENT, message_id="1", attempts=1)
    store.settle([Settlement(claim=claim, outcome=outcome, concludes=True)], NOW)


def _fill(store: SQLiteStore, size: int) -> None:
    """Store announced versions of twenty agents, without waiting for the disk."""
    store.agents()  # opens it
    assert store._connection
    store._connection.execute("PRAGMA synchronous = OFF")
    for index in range(size):
        _announce(store, store.save(make_upload(f"agent-{index % 20}"), None))
    store._connection.execute("PRAGMA synchronous = FULL")


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
