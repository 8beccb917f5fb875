"""Request → version record → store. Knows nothing of channels."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Annotated, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from herald.model import Content, IdempotencyKey, PromptVersion, Upload
from herald.ports import Clock, VersionStore

T = TypeVar("T")

AGENT_TYPE = r"^[a-z0-9][a-z0-9_-]{0,63}$"
MAX_PROMPT_BYTES = 256 * 1024
MAX_CONFIG_BYTES = 64 * 1024
MAX_AUTHOR_CHARACTERS = 100
MAX_REASON_CHARACTERS = 2_000
NO_REASON = "No reason given"
IDEMPOTENCY_KEPT = timedelta(days=7)


class SaveRequest(BaseModel):
    """The body of an upload. At least one of `prompt_content` and `config`; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {"agent_type": "eai", "prompt_content": "You are …", "author": "alice", "reason": "- a - b"}
        },
    )

    agent_type: Annotated[str, Field(pattern=AGENT_TYPE, description="The agent whose prompt this is.")]
    prompt_content: Annotated[
        str | None, Field(min_length=1, description="The full prompt: 1 byte to 256 KiB of UTF-8.")
    ] = None
    config: Annotated[
        dict[str, JsonValue] | None, Field(description="The agent's configuration: at most 64 KiB as JSON.")
    ] = None
    author: Annotated[
        str | None, Field(max_length=MAX_AUTHOR_CHARACTERS, description="Default: the name of the upload token.")
    ] = None
    reason: Annotated[
        str | None, Field(max_length=MAX_REASON_CHARACTERS, description="Why. `- a - b` becomes bullet lines.")
    ] = None

    @field_validator("prompt_content")
    @classmethod
    def _prompt_fits(cls, prompt: str | None) -> str | None:
        return _at_most(prompt, MAX_PROMPT_BYTES, prompt)

    @field_validator("config")
    @classmethod
    def _config_fits(cls, config: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        return _at_most(None if config is None else _encoded(config), MAX_CONFIG_BYTES, config)

    @model_validator(mode="after")
    def _carries_something(self) -> Self:
        if self.prompt_content is None and self.config is None:
            message = "give prompt_content, config, or both"
            raise ValueError(message)
        return self

    @property
    def content(self) -> Content:
        """Return what is to be kept of it, the config encoded."""
        return Content(
            prompt_content=self.prompt_content, config=None if self.config is None else _encoded(self.config)
        )

    @property
    def digest(self) -> str:
        """Return a SHA-256 that is the same for the same body, whatever its spacing and order of fields."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


class Saver:
    """Turns requests into versions."""

    def __init__(self, store: VersionStore, clock: Clock, *, prefix: str | None, zone: ZoneInfo) -> None:
        """Take the parts; `prefix` None: display names begin with the agent type."""
        self._store = store
        self._clock = clock
        self._prefix = prefix
        self._zone = zone

    def save(self, request: SaveRequest, uploaded_by: str, idempotency_key: str | None) -> PromptVersion:
        """Store a new version, or return the one that this key has made before.

        Raises IdempotencyConflict and StoreUnavailable.
        """
        now = self._clock.now()
        upload = Upload(
            agent_type=request.agent_type,
            content=request.content,
            author=(request.author or "").strip() or uploaded_by,
            reason=(request.reason or "").strip() or NO_REASON,
            uploaded_by=uploaded_by,
            created_at=now,
            display_prefix=self._prefix or request.agent_type,
            display_date=now.astimezone(self._zone).date().isoformat(),
        )
        if idempotency_key is None:
            return self._store.save(upload, None)
        owned = json.dumps([uploaded_by, idempotency_key]).encode()
        key = IdempotencyKey(
            id=hashlib.sha256(owned).hexdigest(), body_sha256=request.digest, expires_at=now + IDEMPOTENCY_KEPT
        )
        return self._store.save(upload, key)


def _encoded(config: dict[str, JsonValue]) -> str:
    return json.dumps(config, ensure_ascii=False, separators=(",", ":"))


def _at_most(text: str | None, limit: int, value: T) -> T:
    """Return `value` if `text` has at most `limit` bytes of UTF-8."""
    if text is not None and (size := len(text.encode())) > limit:
        message = f"it has {size} bytes of UTF-8; at most {limit} are taken"
        raise ValueError(message)
    return value
