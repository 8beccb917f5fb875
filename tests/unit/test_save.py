"""What a save makes of a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from herald.model import IdempotencyKey, PromptVersion, Upload
from herald.save import Saver, SaveRequest
from tests.fakes import FakeClock


class Recorder:
    """A store that keeps what it is given."""

    def __init__(self) -> None:
        self.saved: list[tuple[Upload, IdempotencyKey | None]] = []

    def save(self, upload: Upload, key: IdempotencyKey | None) -> PromptVersion:
        self.saved.append((upload, key))
        return upload.version(7)


def save(zone: str = "UTC", prefix: str | None = None, now: datetime | None = None) -> PromptVersion:
    clock = FakeClock(now or datetime(2025, 8, 20, 23, 30, tzinfo=UTC))
    saver = Saver(Recorder(), clock, prefix=prefix, zone=ZoneInfo(zone))  # type: ignore[arg-type]
    return saver.save(SaveRequest(agent_type="eai", prompt_content="p" * 300), "ada", None)


@pytest.mark.parametrize(
    ("zone", "prefix", "display"),
    [
        ("UTC", None, "eai-2025-08-20-v7"),
        ("Europe/Berlin", None, "eai-2025-08-21-v7"),
        ("America/Los_Angeles", "sales", "sales-2025-08-20-v7"),
    ],
)
def test_the_display_name_has_prefix_date_and_number(zone: str, prefix: str | None, display: str) -> None:
    """The date is that of TIME_ZONE; the record's time stays UTC."""
    version = save(zone, prefix)
    assert version.version_display == display
    assert version.created_at.utcoffset() == timedelta(0)


def test_the_record_holds_a_preview_and_not_the_prompt() -> None:
    """200 characters, the size in bytes, the digest."""
    version = save()
    assert version.prompt_preview == "p" * 200
    assert version.prompt_bytes == 300
    assert len(version.prompt_sha256 or "") == 64
    assert (version.config_bytes, version.config_sha256) == (None, None)


def test_a_key_is_kept_hashed_with_its_owner_and_ends(clock: FakeClock) -> None:
    """Two callers' keys never meet; the body's digest ignores the order of fields."""
    store = Recorder()
    saver = Saver(store, clock, prefix=None, zone=ZoneInfo("UTC"))  # type: ignore[arg-type]
    for owner, body in (
        ("ada", '{"agent_type":"a","config":{"x":1,"y":2}}'),
        ("bob", '{"config":{"y":2,"x":1},"agent_type":"a"}'),
    ):
        saver.save(SaveRequest.model_validate_json(body), owner, "key-1")
    first, second = (key for _, key in store.saved)
    assert first
    assert second
    assert first.id != second.id
    assert first.body_sha256 == second.body_sha256
    assert "key-1" not in first.id
    assert first.expires_at > clock.now()
