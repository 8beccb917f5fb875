"""What the core needs of the outside. Each protocol is shaped by its consumer, not by a vendor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from threading import Condition
from typing import Any, Protocol

from pydantic import SecretStr

from herald.model import (
    AgentHead,
    Claim,
    Content,
    Delivery,
    IdempotencyKey,
    Position,
    PromptVersion,
    Reason,
    Settlement,
    Status,
    Taken,
    Upload,
    VersionKey,
)


class Clock(Protocol):
    """Time, injected so that tests can own it."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC: for records and leases, which other processes read."""

    def monotonic(self) -> float:
        """Return seconds that never jump: for deadlines and pauses within this process."""

    def wait(self, condition: Condition, seconds: float | None) -> None:
        """Wait on a held `condition` until it is notified or `seconds` have passed (None: for ever)."""


class VersionStore(Protocol):
    """Where versions are kept. Every method raises StoreUnavailable where the store does not answer."""

    def save(self, upload: Upload, key: IdempotencyKey | None) -> PromptVersion:
        """Write the upload under its number (head, record, content) in one transaction.

        Numbers of an agent are 1, 2, 3, … with no gap and no double. With a `key` seen before, returns
        the version that it made; raises IdempotencyConflict where that had another body.
        """

    def agents(self) -> list[AgentHead]:
        """Return every agent, by name."""

    def versions(self, agent_type: str, limit: int, before: int | None) -> list[PromptVersion]:
        """Return up to `limit` versions with numbers under `before`, newest first."""

    def version(self, key: VersionKey) -> PromptVersion | None:
        """Return one version record, or None."""

    def latest(self, agent_type: str) -> PromptVersion | None:
        """Return the agent's newest version record, or None."""

    def content(self, key: VersionKey) -> Content | None:
        """Return one version's full prompt and config, or None."""

    def unannounced(self, until: datetime, limit: int, after: PromptVersion | None) -> list[PromptVersion]:
        """Return up to `limit` versions created at or before `until` that are not announced, oldest first.

        `after`: only those that come later in this order than it.
        """

    def mark_announced(self, key: VersionKey) -> None:
        """Mark a version whose channels are all final. Harmless when it is marked already."""


class Ledger(Protocol):
    """One delivery per (version, channel). Every method raises StoreUnavailable, as above."""

    def claim(self, key: VersionKey, channel: str, now: datetime, lease: timedelta) -> Claim | Taken:
        """Take the right to deliver, in one conditional write; or say why it is not to be had.

        A lease that was stamped later than `now` shows that the clock jumped back: it is stamped anew, so
        that it ends neither early nor never.
        """

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Write outcomes, and the `announced` mark where one concludes, in one store call.

        An outcome whose claim has been taken over meanwhile is left out: the new claim's holder decides.
        """

    def deliveries(self, key: VersionKey) -> list[Delivery]:
        """Return the deliveries of one version, by channel."""

    def deliveries_in(
        self, status: Status, limit: int, before: Position | None = None, since: datetime | None = None
    ) -> list[Delivery]:
        """Return up to `limit` deliveries of one status, newest first, updated at or after `since`.

        `before`: only those that come later in this order than that place.
        """

    def reopen(self, key: VersionKey, channel: str | None, now: datetime) -> list[str]:
        """Make failed and suppressed deliveries of a version claimable again, and the version unannounced.

        Of all channels, or of one. Returns the channels reopened; what is sent or on its way stays as it is.
        """


@dataclass(frozen=True)
class Request:
    """One outbound HTTP request: POST `body` as JSON to `url`, which is a secret (it holds the token)."""

    url: SecretStr
    body: Mapping[str, Any]
    carries: tuple[VersionKey, ...]


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers (names in lower case) and the decoded JSON body, or None."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class Ruling(Enum):
    """What an answer means for the message that was sent."""

    ACCEPTED = auto()
    REJECTED = auto()  # this message will never be accepted
    GONE = auto()  # no message will be accepted until a person mends the destination
    REROUTE = auto()  # the same message will be accepted by channel.fallback()
    RETRY = auto()  # not now


@dataclass(frozen=True)
class Verdict:
    """A channel's judgement of an answer.

    `pause`: seconds in which the destination wants no further request (None: it did not say);
    `everywhere`: the pause holds for all destinations of this vendor.
    """

    ruling: Ruling
    reason: Reason | None = None
    detail: str | None = None
    message_id: str | None = None
    pause: float | None = None
    everywhere: bool = False


class Courier(Protocol):
    """Carries requests to one destination."""

    def post(self, request: Request) -> Answer:
        """Send one request, and return whatever was answered. Raises Undelivered where no answer came."""


class Channel(Protocol):
    """One destination of one vendor. Pure: renders and judges, sends nothing."""

    @property
    def name(self) -> str:
        """Return the name in the ledger, such as `discord`."""

    @property
    def max_versions(self) -> int:
        """Return how many versions one message can hold at the most."""

    def pack(self, versions: Sequence[PromptVersion]) -> Request:
        """Render as many of `versions`, from the first, as one message holds: at least one.

        `carries` names the versions taken; within the message they stand in order of agent and number.
        """

    def judge(self, answer: Answer) -> Verdict:
        """Say what an answer means. Success is the channel's own judgement, not the status alone."""

    def fallback(self) -> Channel:
        """Return the destination to use after a REROUTE."""
