"""Version records as a document database holds them: written by us, by an older release, or by hand in a console."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from herald.model import PREVIEW_CHARACTERS, ChangeType, PromptVersion, VersionKey

_TEXTS = ("author", "reason", "uploaded_by", "prompt_sha256", "config_sha256")
_SIZES = ("prompt_bytes", "config_bytes")


def read(key: VersionKey, fields: Mapping[str, Any], created_at: Any) -> PromptVersion:
    """Return the version of a document; what is missing or odd becomes a default, so that it can be announced.

    The document's path is what names the version, whatever its fields say; `created_at` is the document's own.
    """
    return PromptVersion(
        agent_type=key.agent_type,
        version_number=key.number,
        version_display=_text(fields.get("version_display")) or f"{key.agent_type}-v{key.number}",
        change_type=_change_type(fields),
        created_at=_time(fields.get("created_at")) or _time(created_at) or datetime.now(UTC),
        prompt_preview=(_text(fields.get("prompt_preview")) or "")[:PREVIEW_CHARACTERS] or None,
        announced=fields.get("announced") is True,
        **{name: _text(fields.get(name)) for name in _TEXTS},
        **{name: _size(fields.get(name)) for name in _SIZES},
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, bytes | Mapping | list):
        return None
    return str(value)


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _time(value: Any) -> datetime | None:
    """Read a time, also as people write it; one without a zone is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if hasattr(value, "ToDatetime"):  # protobuf's own
        value = value.ToDatetime()
    if not isinstance(value, datetime):
        return None
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return datetime.fromtimestamp(aware.timestamp(), UTC)  # a plain datetime: SDKs have subclasses of their own


def _change_type(fields: Mapping[str, Any]) -> ChangeType:
    try:
        return ChangeType(str(fields.get("change_type")).lower())
    except ValueError:
        has_config, has_prompt = (fields.get(name) is not None for name in ("config_sha256", "prompt_preview"))
        return ChangeType.CONFIG if has_config and not has_prompt else ChangeType.PROMPT
