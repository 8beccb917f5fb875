"""What is particular to the Firestore store: round trips, contention between instances, what it says when it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from google.api_core import exceptions as api
from google.cloud.firestore_v1.services.firestore import FirestoreClient

from herald.announce import Announcer
from herald.clock import SystemClock
from herald.errors import StoreUnavailable
from herald.lanes import Lane
from herald.model import Outcome, Reason, Settlement, Status, VersionKey
from herald.stores import firestore as module
from herald.stores.firestore import FirestoreStore
from infra.local.emulator import PROJECT, Emulator
from tests.fakes import NOW, OK, FakeCourier, in_threads, make_upload, make_version
from tests.unit.test_lanes import CHANNEL

CALLS = ("commit", "batch_get_documents", "run_query", "begin_transaction", "rollback", "list_documents")


@pytest.fixture
def store(emulator: Emulator) -> Iterator[FirestoreStore]:
    """Give an empty store."""
    emulator.clear()
    firestore = FirestoreStore(PROJECT, None)
    yield firestore
    firestore.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the round trips, by kind."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Any:
        real = getattr(FirestoreClient, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(FirestoreClient, name, counting(name))
    return counted


def test_an_announcement_takes_two_round_trips(store: FirestoreStore, calls: Counter[str]) -> None:
    """One claim, one batch that settles and marks; with hundreds stored as with one."""
    version = store.save(make_upload(), None)
    lane = Lane(CHANNEL, FakeCourier(OK), store, SystemClock())
    announcer = Announcer({"discord": lane}, {}, store, store, SystemClock(), max_wait=9, lease=99)
    calls.clear()
    assert announcer.announce(version, 10**9).done
    assert calls == {"commit": 2}
    assert store.unannounced(NOW, 9, None) == []


def test_a_second_event_takes_two_round_trips_and_sends_nothing(store: FirestoreStore, calls: Counter[str]) -> None:
    """The claim is refused, and the reason is read."""
    version = store.save(make_upload(), None)
    courier = FakeCourier(OK)
    announcer = Announcer(
        {"discord": Lane(CHANNEL, courier, store, SystemClock())}, {}, store, store, SystemClock(), max_wait=9, lease=99
    )
    announcer.announce(version, 10**9)
    announced = store.version(version.key)
    assert announced
    calls.clear()
    assert announcer.announce(announced, 10**9).done
    assert calls == {"commit": 1, "batch_get_documents": 1}
    assert len(courier.requests) == 1


def test_an_upload_takes_two_round_trips(store: FirestoreStore, calls: Counter[str]) -> None:
    """The head is read, and one commit writes head, record and content."""
    store.save(make_upload(), None)
    assert calls == {"batch_get_documents": 1, "commit": 1}


def test_racing_instances_leave_no_gap_and_no_double(emulator: Emulator) -> None:
    """Who loses the race for a number takes the next one."""
    emulator.clear()
    stores = [FirestoreStore(PROJECT, None) for _ in range(5)]
    saves = [lambda store=store: store.save(make_upload(), None).version_number for store in stores * 4]
    assert sorted(in_threads(saves)) == list(range(1, 21))
    for store in stores:
        store.close()


def test_a_batch_with_a_lost_claim_or_a_missing_version_settles_the_others(store: FirestoreStore) -> None:
    """The batch is refused as a whole, and then each is written alone."""
    keys = [store.save(make_upload(), None).key for _ in range(2)]
    claims = [store.claim(key, "discord", NOW, timedelta(minutes=5)) for key in (*keys, VersionKey("gone", 1))]
    taken_over = store.claim(keys[0], "discord", NOW + timedelta(minutes=5), timedelta(minutes=5))
    outcome = Outcome(status=Status.SENT, message_id="1", attempts=1)
    store.settle([Settlement(claim=each, outcome=outcome, concludes=True) for each in claims], NOW)
    statuses = [store.deliveries(key)[0].status for key in (*keys, VersionKey("gone", 1))]
    assert statuses == [Status.CLAIMED, Status.SENT, Status.SENT]
    assert taken_over
    assert store.version(VersionKey("gone", 1)) is None


def test_a_record_written_by_hand_is_listed_and_one_with_an_odd_name_is_not(store: FirestoreStore) -> None:
    """Someone may write in the console."""
    store._db.document("agents/eai/versions/000007").set({"author": "Grace", "announced": False, "version_number": 7})
    store._db.document("agents/eai/versions/seven").set({"author": "Grace", "version_number": 8})
    assert [str(version.key) for version in store.versions("eai", 9, None)] == ["eai/7"]
    version = store.version(VersionKey("eai", 7))
    assert version
    assert version.author == "Grace"


def test_the_largest_content_fits(store: FirestoreStore) -> None:
    """256 KiB of prompt and 64 KiB of config, under Firestore's 1 MiB."""
    saved = store.save(make_upload(prompt="🚀" * 65_536, config='"' + "x" * 65_534 + '"'), None)
    content = store.content(saved.key)
    assert content
    assert len(content.prompt_content or "") == 65_536


def test_an_emulator_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unavailable, in seconds, with what to look at."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    monkeypatch.setitem(module._CALL, "retry", module._RETRY.with_timeout(0.2))
    monkeypatch.setitem(module._CALL, "timeout", 0.2)
    with pytest.raises(StoreUnavailable, match="does not answer: check the network"):
        FirestoreStore(PROJECT, None).version(make_version().key)


def test_missing_credentials_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the emulator, without a service account."""
    monkeypatch.delenv("FIRESTORE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(StoreUnavailable, match="gcloud auth application-default login"):
        FirestoreStore(PROJECT, None).agents()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (api.NotFound("The database (default) does not exist for project x"), "check STORE_URL"),
        (api.PermissionDenied("no"), "roles/datastore.user"),
        (api.FailedPrecondition("The query requires an index."), "apply terraform/gcp"),
        (api.Aborted("Too much contention"), "too many uploads"),
        (api.RetryError("Timeout", None), "does not answer"),
        (api.DeadlineExceeded("late"), "does not answer"),
    ],
)
def test_each_failure_says_what_to_do(error: Exception, words: str) -> None:
    """One line an operator can act on; the vendor's error is its cause."""
    store = FirestoreStore("acme", "prompts")
    with pytest.raises(StoreUnavailable, match=words) as raised, store._translated():
        raise error
    assert "'prompts' of project 'acme'" in str(raised.value)
    assert raised.value.__cause__ is error


def test_a_missing_database_is_no_lost_race(store: FirestoreStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its NotFound is not taken for a missing document."""

    def missing(*_: Any, **__: Any) -> None:
        message = "The database (default) does not exist for project x"
        raise api.NotFound(message)

    key = store.save(make_upload(), None).key
    claim = store.claim(key, "discord", NOW, timedelta(minutes=5))
    monkeypatch.setattr(FirestoreClient, "commit", missing)
    outcome = Outcome(status=Status.FAILED, reason=Reason.REJECTED)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        store.settle([Settlement(claim=claim, outcome=outcome)], NOW)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        store.mark_announced(key)


def test_documents_that_are_no_versions_hide_none(store: FirestoreStore) -> None:
    """However many somebody has written by hand, under names that no version has."""
    for number in range(5):
        fields = {"announced": False, "created_at": NOW - timedelta(hours=1)}
        store._db.document(f"agents/eai/versions/draft-{number}").set(fields)
    version = store.save(make_upload(), None)
    assert store.unannounced(NOW, 2, None) == [version]
    assert store.unannounced(NOW, 2, version) == []
