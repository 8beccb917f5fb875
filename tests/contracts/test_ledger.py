"""What every Ledger keeps to."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

import pytest

from herald.model import Claim, Outcome, Position, Reason, Settlement, Status, Taken, VersionKey
from herald.ports import Ledger, VersionStore
from tests.fakes import NOW, in_threads, make_upload

LEASE = timedelta(minutes=5)


class Store(VersionStore, Ledger, Protocol):
    """A store is both."""


@pytest.fixture
def key(store: Store) -> VersionKey:
    """Give the key of a stored version."""
    return store.save(make_upload(), None).key


def claim(store: Ledger, key: VersionKey, now: datetime = NOW, channel: str = "discord") -> Claim | Taken:
    return store.claim(key, channel, now, LEASE)


def won(store: Ledger, key: VersionKey, now: datetime = NOW, channel: str = "discord") -> Claim:
    got = claim(store, key, now, channel)
    assert isinstance(got, Claim)
    return got


def settle(store: Ledger, claimed: Claim, status: Status, *, concludes: bool = False, **outcome: Any) -> None:
    store.settle([Settlement(claim=claimed, outcome=Outcome(status=status, **outcome), concludes=concludes)], NOW)


def test_of_many_claims_at_once_one_is_granted(store: Store, key: VersionKey) -> None:
    """The others learn that it is held."""
    results = in_threads([lambda: claim(store, key)] * 20)
    assert sum(isinstance(result, Claim) for result in results) == 1
    assert results.count(Taken.HELD) == 19


@pytest.mark.parametrize("status", [Status.SENT, Status.FAILED, Status.SUPPRESSED])
def test_a_final_delivery_cannot_be_claimed(store: Store, key: VersionKey, status: Status) -> None:
    """Not now and not when a lease would have ended."""
    settle(store, won(store, key), status)
    assert claim(store, key) is Taken.FINAL
    assert claim(store, key, NOW + timedelta(days=9)) is Taken.FINAL


def test_a_released_delivery_can_be_claimed_at_once(store: Store, key: VersionKey) -> None:
    """A transient failure costs no lease."""
    settle(store, won(store, key), Status.RELEASED, reason=Reason.TIMEOUT)
    assert isinstance(claim(store, key), Claim)


def test_a_lease_ends(store: Store, key: VersionKey) -> None:
    """A crashed holder blocks a version for one lease, and not a moment less."""
    won(store, key)
    assert claim(store, key, NOW + LEASE - timedelta(seconds=1)) is Taken.HELD
    assert isinstance(claim(store, key, NOW + LEASE), Claim)


def test_a_clock_that_jumps_back_ends_a_lease_neither_early_nor_never(store: Store, key: VersionKey) -> None:
    """The lease is stamped anew at the first look after the jump."""
    won(store, key)
    jumped = NOW - timedelta(days=1)
    assert claim(store, key, jumped) is Taken.HELD
    assert claim(store, key, jumped + LEASE - timedelta(seconds=1)) is Taken.HELD
    assert isinstance(claim(store, key, jumped + LEASE), Claim)


def test_a_late_holder_cannot_overwrite(store: Store, key: VersionKey) -> None:
    """Who lost the lease has lost the say."""
    late = won(store, key)
    current = won(store, key, NOW + LEASE)
    settle(store, late, Status.FAILED, reason=Reason.REJECTED, concludes=True)
    assert claim(store, key, NOW + LEASE) is Taken.HELD
    assert not _version(store, key).announced
    settle(store, current, Status.SENT, message_id="1", concludes=True)
    assert store.deliveries(key)[0].status is Status.SENT
    assert _version(store, key).announced


def test_channels_and_versions_are_claimed_apart(store: Store, key: VersionKey) -> None:
    """A half-finished fan-out resends only the missing half; names that look alike are different."""
    settle(store, won(store, key), Status.SENT)
    assert isinstance(claim(store, key, channel="slack"), Claim)
    for other in (VersionKey("EAI", 1), VersionKey("eai ", 1), VersionKey("eai", 10)):
        assert isinstance(claim(store, other), Claim)


def test_a_batch_is_settled_and_marked_together(store: Store) -> None:
    """One call settles several versions; only concluded ones are marked as announced."""
    keys = [store.save(make_upload(), None).key for _ in range(3)]
    outcome = Outcome(status=Status.SENT, message_id="77", attempts=1)
    store.settle([Settlement(claim=won(store, key), outcome=outcome, concludes=key.number != 2) for key in keys], NOW)
    assert [_version(store, key).announced for key in keys] == [True, False, True]
    assert {store.deliveries(key)[0].message_id for key in keys} == {"77"}


def test_the_record_tells_status_reason_attempts_time_and_message(store: Store, key: VersionKey) -> None:
    """Attempts add up over claims; the last outcome is what is shown."""
    settle(store, won(store, key), Status.RELEASED, reason=Reason.TIMEOUT, detail="no answer in time", attempts=2)
    settle(store, won(store, key), Status.SENT, message_id="9", attempts=1)
    (delivery,) = store.deliveries(key)
    assert (delivery.channel, delivery.status, delivery.reason, delivery.attempts, delivery.message_id) == (
        *("discord", Status.SENT, None, 3, "9"),
    )
    assert delivery.updated_at == NOW


def _version(store: Store, key: VersionKey) -> Any:
    version = store.version(key)
    assert version is not None
    return version


def test_failed_and_suppressed_deliveries_can_be_reopened(store: Store, key: VersionKey) -> None:
    """They are claimable again, and the version unannounced; its attempts go on counting."""
    settle(store, won(store, key), Status.FAILED, reason=Reason.REJECTED, attempts=2)
    settle(store, won(store, key, channel="slack"), Status.SUPPRESSED, reason=Reason.NOT_PRODUCTION, concludes=True)
    assert store.reopen(key, None, NOW) == ["discord", "slack"]
    assert [version.key for version in store.unannounced(NOW, 9, None)] == [key]
    settle(store, won(store, key), Status.SENT, attempts=1)
    assert store.deliveries(key)[0].attempts == 3


def test_only_the_named_channel_is_reopened(store: Store, key: VersionKey) -> None:
    """Whoever mended Slack does not post to Discord again."""
    for channel in ("discord", "slack"):
        settle(store, won(store, key, channel=channel), Status.FAILED)
    assert store.reopen(key, "slack", NOW) == ["slack"]
    assert claim(store, key) is Taken.FINAL


@pytest.mark.parametrize("status", [None, Status.SENT, Status.RELEASED])
def test_what_is_sent_or_open_is_not_reopened(store: Store, key: VersionKey, status: Status | None) -> None:
    """Nobody sends a message twice by it, nor takes a live claim away."""
    claimed = won(store, key)
    if status:
        settle(store, claimed, status, concludes=status.is_final)
    assert store.reopen(key, None, NOW) == []
    assert store.reopen(VersionKey("nobody", 1), None, NOW) == []
    assert _version(store, key).announced is (status is Status.SENT)


def test_deliveries_of_a_status_are_listed_newest_first_in_pages(store: Store) -> None:
    """Since a time, if asked for; those of one instant without a gap."""
    for minute in (0, 0, 0, 1, 2):
        key = store.save(make_upload(), None).key
        at = NOW + timedelta(minutes=minute)
        outcome = Outcome(status=Status.FAILED, reason=Reason.WEBHOOK_GONE)
        store.settle([Settlement(claim=won(store, key, NOW), outcome=outcome)], at)
    settle(store, won(store, store.save(make_upload(), None).key), Status.SENT)
    first = store.deliveries_in(Status.FAILED, 3)
    assert [delivery.version_number for delivery in first] == [5, 4, 3]
    place = Position.parse(str(first[-1].position))
    assert [delivery.version_number for delivery in store.deliveries_in(Status.FAILED, 3, place)] == [2, 1]
    recent = store.deliveries_in(Status.FAILED, 9, since=NOW + timedelta(minutes=1))
    assert [delivery.version_number for delivery in recent] == [5, 4]
