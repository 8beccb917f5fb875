"""What is particular to the embedded store: its files and its failures."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from herald.errors import StoreUnavailable
from herald.stores.sqlite import SQLiteStore
from tests.fakes import NOW, in_threads, make_upload


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """Give an empty store."""
    sqlite = SQLiteStore(str(tmp_path / "herald.db"))
    yield sqlite
    sqlite.close()


def test_two_processes_share_the_file(tmp_path: Path) -> None:
    """Racing saves over several connections, which open the file at once, leave no gap and no double."""
    for attempt in range(10):
        stores = [SQLiteStore(str(tmp_path / f"{attempt}.db")) for _ in range(4)]
        saves = [lambda store=store: store.save(make_upload(), None).version_number for store in stores * 3]
        assert sorted(in_threads(saves)) == list(range(1, 13))
        for store in stores:
            store.close()


def test_a_full_disk_leaves_nothing_half_made(store: SQLiteStore) -> None:
    """No number is used up, no content stays without its record, and the next save works."""
    store.save(make_upload(), None)
    assert store._connection
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StoreUnavailable, match="full"):
        store.save(make_upload(prompt="x" * 200_000), None)
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert [head.latest_version for head in store.agents()] == [1]
    assert len(store.unannounced(NOW, 10, None)) == 1
    assert store.save(make_upload(), None).version_number == 2


def test_a_locked_file_is_unavailable_not_broken(
    store: SQLiteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text says where to look."""
    monkeypatch.setattr("herald.stores.sqlite._BUSY_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / "herald.db", isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="STORE_URL"):
        store.save(make_upload(), None)
    other.execute("ROLLBACK")
    other.close()
    assert store.save(make_upload(), None).version_number == 1


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    """And a directory that is not there; the connection is not left half open."""
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    for path in (tmp_path / "text.db", tmp_path / "nowhere" / "herald.db"):
        broken = SQLiteStore(str(path))
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                broken.agents()


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    """A process forks its workers in between."""
    SQLiteStore(str(tmp_path / "herald.db"))
    assert list(tmp_path.iterdir()) == []


def test_reads_use_an_index_whatever_the_number_of_versions(store: SQLiteStore) -> None:
    """No statement on the way of an announcement scans a table."""
    store.save(make_upload(), None)
    assert store._connection
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    version = store.save(make_upload(), None)
    store.claim(version.key, "discord", NOW, timedelta(minutes=5))
    store.unannounced(NOW, 10, version)
    store._connection.set_trace_callback(None)
    plans = [
        row["detail"]
        for statement in statements
        if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        for row in store._connection.execute("EXPLAIN QUERY PLAN " + statement)
    ]
    assert plans
    assert not [plan for plan in plans if plan.startswith("SCAN")]
