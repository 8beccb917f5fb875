"""Routing, claims and marks of an announcement with more than one channel."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from herald.announce import Announcer
from herald.lanes import Parcel
from herald.model import Claim, Outcome, PromptVersion, Reason, Settlement, Status
from herald.stores.sqlite import SQLiteStore
from tests.fakes import NOW, FakeClock, make_upload

SENT = Outcome(status=Status.SENT, message_id="1")
RELEASED = Outcome(status=Status.RELEASED, reason=Reason.TIMEOUT)


class Scripted:
    """A destination that settles as told."""

    def __init__(self, store: SQLiteStore, *outcomes: Outcome) -> None:
        self.store, self.outcomes = store, list(outcomes)
        self.parcels: list[Parcel] = []

    def submit(self, parcel: Parcel, deadline: float) -> Outcome:  # noqa: ARG002
        self.parcels.append(parcel)
        outcome = self.outcomes.pop(0)
        concludes = parcel.concludes and outcome.status.is_final
        self.store.settle([Settlement(claim=parcel.claim, outcome=outcome, concludes=concludes)], NOW)
        return outcome


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """Give an empty store."""
    sqlite = SQLiteStore(str(tmp_path / "herald.db"))
    yield sqlite
    sqlite.close()


@pytest.fixture
def version(store: SQLiteStore) -> PromptVersion:
    """Give a stored version."""
    return store.save(make_upload(), None)


def announcer(store: SQLiteStore, **destinations: Scripted) -> Announcer:
    return Announcer(destinations, {}, store, store, FakeClock(), max_wait=240, lease=300)


def is_announced(store: SQLiteStore, version: PromptVersion) -> bool:
    found = store.version(version.key)
    assert found is not None
    return found.announced


def test_a_half_finished_fan_out_sends_only_the_missing_half(store: SQLiteStore, version: PromptVersion) -> None:
    """The version is announced when every channel is final, not before."""
    discord, slack = Scripted(store, SENT), Scripted(store, RELEASED, SENT)
    subject = announcer(store, discord=discord, slack=slack)
    assert subject.announce(version, 10**9).done is False
    assert not is_announced(store, version)
    assert subject.announce(version, 10**9).done is True
    assert is_announced(store, version)
    assert (len(discord.parcels), len(slack.parcels)) == (1, 2)


def test_a_claim_held_elsewhere_asks_for_a_retry(store: SQLiteStore, version: PromptVersion) -> None:
    """Another instance is at it; this one sends nothing."""
    store.claim(version.key, "discord", NOW, timedelta(minutes=5))
    discord = Scripted(store)
    assert announcer(store, discord=discord).announce(version, 10**9).done is False
    assert discord.parcels == []


def test_a_lost_mark_is_made_up_for(store: SQLiteStore, version: PromptVersion) -> None:
    """A crash between the last outcome and the mark leaves nothing for ever unannounced."""
    claim = store.claim(version.key, "discord", NOW, timedelta(minutes=5))
    assert isinstance(claim, Claim)
    store.settle([Settlement(claim=claim, outcome=SENT, concludes=False)], NOW)
    assert announcer(store, discord=Scripted(store)).announce(version, 10**9).done is True
    assert is_announced(store, version)
