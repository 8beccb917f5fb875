"""What the API takes in paths, queries and headers, and what it answers. The upload itself is in save.py."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from herald.model import AgentHead, Delivery, Position, PromptVersion, Status

MAX_PAGE = 100


class Saved(BaseModel):
    """The answer to an upload."""

    success: bool = True
    agent_type: str
    version_number: int
    version_display: str
    change_type: str
    created_at: datetime
    message: str


class AgentPath(BaseModel):
    """An agent, in the path."""

    agent_type: str


class VersionPath(AgentPath):
    """A version, in the path."""

    number: Annotated[str, Field(description="A version number, or `latest`.")]


class Page(BaseModel):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 20
    before: Annotated[int | None, Field(ge=1, description="Only versions with lower numbers: `next` of a page.")] = None


class IdempotencyHeader(BaseModel):
    """Makes an upload safe to repeat."""

    idempotency_key: Annotated[
        str | None,
        Field(
            alias="Idempotency-Key", min_length=1, max_length=255, description="The same key and body: no new version."
        ),
    ] = None


class Agents(BaseModel):
    """Every agent with its newest version number."""

    agents: list[AgentHead]


class Versions(BaseModel):
    """A page of versions, newest first; `next` is the `before` of the next page, null on the last."""

    versions: list[PromptVersion]
    next: int | None


class VersionDetail(PromptVersion):
    """One version with its full prompt and config, and what became of its announcements."""

    prompt_content: str | None
    config: dict[str, JsonValue] | None
    deliveries: list[Delivery]


class DeliveryQuery(BaseModel):
    """Which deliveries."""

    status: Annotated[Status, Field(description="`failed` is what needs a person.")]
    since: Annotated[AwareDatetime | None, Field(description="Only those updated then or later.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 20
    before: Annotated[str | None, Field(description="`next` of a page.")] = None

    @property
    def position(self) -> Position | None:
        """Return the place where the page begins."""
        return None if self.before is None else Position.parse(self.before)

    @field_validator("before")
    @classmethod
    def _is_a_position(cls, before: str | None) -> str | None:
        if before is not None:
            Position.parse(before)
        return before


class Deliveries(BaseModel):
    """A page of deliveries, newest first; `next` is the `before` of the next page, null on the last."""

    deliveries: list[Delivery]
    next: str | None


class RedeliverRequest(BaseModel):
    """Which channel to send to again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    channel: Annotated[str | None, Field(description="Default: every channel that failed or was suppressed.")] = None

    @model_validator(mode="before")
    @classmethod
    def _no_body_is_no_choice(cls, body: Any) -> Any:
        return {} if body is None else body


class Reopened(BaseModel):
    """The channels that the version will be announced on again."""

    success: bool = True
    agent_type: str
    version_number: int
    reopened: list[str]
    message: str
