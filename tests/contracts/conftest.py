"""The stores and channels that must keep the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from herald.stores.sqlite import SQLiteStore


@pytest.fixture(params=["sqlite"])
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """Give an empty store."""
    sqlite = SQLiteStore(str(tmp_path / "herald.db"))
    yield sqlite
    sqlite.close()
