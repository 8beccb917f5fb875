"""The stores and channels that must keep the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from herald.stores.firestore import FirestoreStore
from herald.stores.sqlite import SQLiteStore
from infra.local.emulator import PROJECT


@pytest.fixture(params=["sqlite", "firestore"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLiteStore | FirestoreStore]:
    """Give an empty store."""
    if request.param == "sqlite":
        store: SQLiteStore | FirestoreStore = SQLiteStore(str(tmp_path / "herald.db"))
    else:
        request.getfixturevalue("emulator").clear()
        store = FirestoreStore(PROJECT, None)
    yield store
    store.close()
