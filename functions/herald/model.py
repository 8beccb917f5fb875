"""What the product talks about: uploads, prompt versions, deliveries. All frozen."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PositiveInt

PREVIEW_CHARACTERS = 200
DISCORD = "discord"


class Frozen(BaseModel):
    """A value object. Unknown fields are dropped: an older reader meets a newer record."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class ChangeType(StrEnum):
    """What a version carries, and so what changed."""

    PROMPT = "prompt"
    CONFIG = "config"
    BOTH = "both"


class VersionKey(NamedTuple):
    """Identity of a version, and with a channel, of a delivery."""

    agent_type: str
    number: int

    def __str__(self) -> str:
        """Return the form that people type, `eai/42`."""
        return f"{self.agent_type}/{self.number}"

    @property
    def path(self) -> str:
        """Return the document's path, `agents/eai/versions/000042`."""
        return f"agents/{self.agent_type}/versions/{self.number:06d}"

    @classmethod
    def from_path(cls, path: str) -> VersionKey:
        """Read a document's path.

        Only the path's one canonical form is read, so that `42` and `000042` cannot share a claim.
        Raises ValueError for anything else.
        """
        match path.split("/"):
            case ["agents", agent, "versions", digits] if agent and digits.isascii() and digits.isdigit():
                key = cls(agent, int(digits))
                if key.number > 0 and key.path == path:
                    return key
        message = f"{path!r} is not of the form agents/AGENT/versions/000042"
        raise ValueError(message)


class PromptVersion(Frozen):
    """The version record: small whatever the prompt's size, because it travels in the event.

    `prompt_preview` holds the first 200 characters; sizes are in bytes of UTF-8; digests are SHA-256, hex.
    `announced` turns true when every channel that the version routes to is final.
    """

    agent_type: Annotated[str, Field(min_length=1, max_length=1_500)]
    version_number: PositiveInt
    version_display: str
    change_type: ChangeType
    author: str | None = None
    reason: str | None = None
    uploaded_by: str | None = None
    created_at: AwareDatetime
    prompt_preview: str | None = None
    prompt_bytes: int | None = None
    prompt_sha256: str | None = None
    config_bytes: int | None = None
    config_sha256: str | None = None
    announced: bool = False

    @property
    def key(self) -> VersionKey:
        """Return the version's identity."""
        return VersionKey(self.agent_type, self.version_number)


class Content(Frozen):
    """The full prompt and the config of one version; the config as the JSON text it is stored as."""

    prompt_content: str | None = None
    config: str | None = None

    @property
    def change_type(self) -> ChangeType:
        """Derive the kind of change from what is there."""
        if self.prompt_content is None:
            return ChangeType.CONFIG
        return ChangeType.PROMPT if self.config is None else ChangeType.BOTH

    @property
    def digest(self) -> str:
        """Return one SHA-256 over prompt and config, hex; an absent part differs from an empty one."""
        return sha256(f"{sha256(self.prompt_content)}{sha256(self.config)}") or ""


class Upload(Frozen):
    """A validated upload, complete but for the number that the store will give it."""

    agent_type: str
    content: Content
    author: str
    reason: str
    uploaded_by: str
    created_at: AwareDatetime
    display_prefix: str
    display_date: str

    def version(self, number: int) -> PromptVersion:
        """Return the version record that this upload becomes as `number`."""
        prompt, config = self.content.prompt_content, self.content.config
        return PromptVersion(
            agent_type=self.agent_type,
            version_number=number,
            version_display=f"{self.display_prefix}-{self.display_date}-v{number}",
            change_type=self.content.change_type,
            author=self.author,
            reason=self.reason,
            uploaded_by=self.uploaded_by,
            created_at=self.created_at,
            prompt_preview=None if prompt is None else prompt[:PREVIEW_CHARACTERS],
            prompt_bytes=byte_length(prompt),
            prompt_sha256=sha256(prompt),
            config_bytes=byte_length(config),
            config_sha256=sha256(config),
        )


class IdempotencyKey(Frozen):
    """A caller's Idempotency-Key, hashed with the caller's name, and the digest of the body it came with."""

    id: str
    body_sha256: str
    expires_at: AwareDatetime


class AgentHead(Frozen):
    """What the store knows of an agent: its newest version."""

    agent_type: str
    latest_version: PositiveInt
    content_sha256: str
    updated_at: AwareDatetime


class Status(StrEnum):
    """Where a delivery stands. Sent, failed and suppressed are final; a released one may be claimed again."""

    CLAIMED = "claimed"
    RELEASED = "released"
    SENT = "sent"
    FAILED = "failed"
    SUPPRESSED = "suppressed"

    @property
    def is_final(self) -> bool:
        """Tell whether only a person can set this delivery going again."""
        return self in {Status.SENT, Status.FAILED, Status.SUPPRESSED}


class Reason(StrEnum):
    """Why a delivery is not (yet) sent. Closed: metrics and alerts count by it."""

    NOT_PRODUCTION = "not_production"
    NOT_CONFIGURED = "not_configured"
    REJECTED = "rejected"
    WEBHOOK_GONE = "webhook_gone"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    STORE_UNAVAILABLE = "store_unavailable"
    INTERNAL_ERROR = "internal_error"


class Outcome(Frozen):
    """What became of one attempt to deliver.

    `attempts` counts requests that carried the version; `retry_after`: for how many seconds its destination is let be,
    where that is why it was released.
    """

    status: Status
    reason: Reason | None = None
    detail: str | None = None
    message_id: str | None = None
    attempts: int = 0
    retry_after: float | None = None


class Delivery(Frozen):
    """One row of the ledger: a version on its way to a channel, or arrived there."""

    agent_type: str
    version_number: int
    channel: str
    status: Status
    reason: Reason | None = None
    detail: str | None = None
    attempts: int = 0
    message_id: str | None = None
    updated_at: AwareDatetime

    @property
    def position(self) -> Position:
        """Return its place in a list of deliveries."""
        return Position(self.updated_at, self.agent_type, self.version_number, self.channel)


class Position(NamedTuple):
    """Where a list of deliveries goes on: the place of the last one shown, newest first."""

    updated_at: datetime
    agent_type: str
    version_number: int
    channel: str

    def __str__(self) -> str:
        """Return the text that a caller hands back."""
        return "~".join((self.updated_at.isoformat(), self.agent_type, str(self.version_number), self.channel))

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read that text. Raises ValueError for any other."""
        match text.split("~"):
            case [time, agent, number, channel]:
                at = datetime.fromisoformat(time)
                if at.tzinfo is not None:
                    return cls(at, agent, int(number), channel)
        message = "take it from `next` of a page"
        raise ValueError(message)


class Announcement(NamedTuple):
    """What an attempt to announce a version has come to.

    `done`: every channel is final. `reached`: the final statuses that this attempt brought about. `retry_after`: in
    how many seconds another attempt is of use, where that is known.
    """

    done: bool
    reached: tuple[Status, ...] = ()
    retry_after: float | None = None


class Claim(Frozen):
    """The right to deliver one version to one channel, until its lease ends. `token` fences late writers."""

    key: VersionKey
    channel: str
    token: str


class Taken(StrEnum):
    """Why a claim was not granted: a live claim elsewhere, or nothing left to do."""

    HELD = "held"
    FINAL = "final"


class Settlement(Frozen):
    """What to write for one claim. `concludes`: with it, every channel of the version is final."""

    claim: Claim
    outcome: Outcome
    concludes: bool = False


def sha256(text: str | None) -> str | None:
    """Return the SHA-256 of a text's UTF-8, hex; None for None."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def byte_length(text: str | None) -> int | None:
    """Return a text's length in bytes of UTF-8; None for None."""
    return None if text is None else len(text.encode())
