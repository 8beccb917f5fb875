"""What every VersionStore keeps to."""

from __future__ import annotations

from datetime import timedelta

import pytest

from herald.errors import IdempotencyConflict
from herald.model import Content, IdempotencyKey, VersionKey
from herald.ports import VersionStore
from tests.fakes import NOW, in_threads, make_upload


def key(name: str = "k", body: str = "b", days: float = 7) -> IdempotencyKey:
    return IdempotencyKey(id=name, body_sha256=body, expires_at=NOW + timedelta(days=days))


def test_versions_of_an_agent_are_numbered_from_one(store: VersionStore) -> None:
    """Each agent counts for itself."""
    saved = [store.save(make_upload(agent), None) for agent in ("eai", "eai", "sales")]
    assert [str(version.key) for version in saved] == ["eai/1", "eai/2", "sales/1"]
    assert saved[1].version_display == "eai-2025-08-20-v2"


def test_fifty_racing_uploads_leave_no_gap_and_no_double(store: VersionStore) -> None:
    """Fifty at once on one agent are 1 to 50."""
    saved = in_threads([lambda: store.save(make_upload(), None).version_number] * 50)
    assert sorted(saved) == list(range(1, 51))


def test_a_version_is_read_back_as_it_was_saved(store: VersionStore) -> None:
    """Record and content come back whole, odd characters included."""
    prompt = "naïve 🚀 ```x``` \x00 'quoted'"
    saved = store.save(make_upload(prompt=prompt, config='{"a":1}'), None)
    assert store.version(saved.key) == saved
    assert store.latest("eai") == saved
    assert store.content(saved.key) == Content(prompt_content=prompt, config='{"a":1}')


def test_what_is_not_there_is_none(store: VersionStore) -> None:
    """Unknown versions, agents and contents are None or empty, not errors."""
    nothing = VersionKey("nobody", 7)
    assert (store.version(nothing), store.content(nothing), store.latest("nobody")) == (None, None, None)
    assert store.versions("nobody", 10, None) == []
    assert store.agents() == []


def test_versions_are_paged_newest_first(store: VersionStore) -> None:
    """`before` continues where a page ended."""
    for _ in range(5):
        store.save(make_upload(), None)
    assert [v.version_number for v in store.versions("eai", 2, None)] == [5, 4]
    assert [v.version_number for v in store.versions("eai", 9, 4)] == [3, 2, 1]


def test_agents_are_listed_with_their_newest_version(store: VersionStore) -> None:
    """The list is by name, whatever the order of uploads."""
    for agent in ("sales", "eai", "sales"):
        store.save(make_upload(agent), None)
    assert [(head.agent_type, head.latest_version) for head in store.agents()] == [("eai", 1), ("sales", 2)]


def test_the_same_key_and_body_make_one_version(store: VersionStore) -> None:
    """A repeated upload gets the version that the first one made."""
    first = store.save(make_upload(), key())
    store.save(make_upload(), None)
    assert store.save(make_upload(), key()) == first
    assert store.versions("eai", 9, None)[0].version_number == 2


def test_racing_uploads_with_one_key_make_one_version(store: VersionStore) -> None:
    """A client that repeats itself at once still makes one version."""
    saved = in_threads([lambda: store.save(make_upload(), key()).version_number] * 10)
    assert saved == [1] * 10


def test_the_same_key_with_another_body_is_a_conflict(store: VersionStore) -> None:
    """Nothing is saved, and the text says what to do."""
    store.save(make_upload(), key(body="one"))
    with pytest.raises(IdempotencyConflict, match="use a new key"):
        store.save(make_upload(), key(body="two"))
    assert len(store.versions("eai", 9, None)) == 1


def test_a_key_is_forgotten_when_it_expires(store: VersionStore) -> None:
    """An expired key may be used for a new version."""
    store.save(make_upload(), key(days=0))
    assert store.save(make_upload(), key(body="other")).version_number == 2


def test_only_the_announced_mark_of_a_record_changes(store: VersionStore) -> None:
    """Marking twice is harmless; nothing else of the record moves."""
    saved = store.save(make_upload(), None)
    for _ in range(2):
        store.mark_announced(saved.key)
    assert store.version(saved.key) == saved.model_copy(update={"announced": True})


def test_a_record_is_small_whatever_the_prompts_size(store: VersionStore) -> None:
    """It travels in the event: 16 KiB at the most."""
    saved = store.save(make_upload(prompt="🚀" * 60_000), None)
    assert len(saved.model_dump_json().encode()) < 16 * 1024


def test_unannounced_versions_are_found_oldest_first_in_pages(store: VersionStore) -> None:
    """Those old enough, of all agents, without the announced ones."""
    for minute, agent in enumerate(("b", "a", "b", "a", "b")):
        store.save(make_upload(agent, created_at=NOW + timedelta(minutes=minute)), None)
    store.mark_announced(VersionKey("b", 2))
    until = NOW + timedelta(minutes=3)
    first = store.unannounced(until, 2, None)
    assert [str(version.key) for version in first] == ["b/1", "a/1"]
    assert [str(version.key) for version in store.unannounced(until, 2, first[-1])] == ["a/2"]
    assert store.unannounced(NOW - timedelta(seconds=1), 2, None) == []


def test_versions_of_one_instant_are_paged_without_a_gap(store: VersionStore) -> None:
    """A burst is saved within one tick of the clock."""
    for agent in ("b", "a", "c"):
        for _ in range(3):
            store.save(make_upload(agent), None)
    seen, last = [], None
    while page := store.unannounced(NOW, 2, last):
        seen += [str(version.key) for version in page]
        last = page[-1]
    assert seen == [f"{agent}/{number}" for agent in "abc" for number in (1, 2, 3)]
