"""Event → route → claim → deliver → record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from herald.errors import StoreUnavailable, UndecodableEvent
from herald.lanes import Destination, Parcel
from herald.model import Announcement, Claim, Outcome, PromptVersion, Reason, Status, Taken, VersionKey
from herald.ports import Clock, Ledger, VersionStore
from herald.routing import route

_log = logging.getLogger(__name__)

# Returns the key alone where the event came without data.
Decoder = Callable[[Mapping[str, Any], Any], PromptVersion | VersionKey]

# The operator's four messages; docs/DISCORD_NOTIFICATIONS.md explains each.
SENT = "Discord notification sent successfully"
NOT_CONFIGURED = "Discord webhook URL not configured"
NOT_PRODUCTION = "Not in production environment"
NOT_SENT = "Failed to send Discord notification"


class Announcer:
    """Announces versions on every channel that they route to."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        decoders: Mapping[str, Decoder],
        store: VersionStore,
        ledger: Ledger,
        clock: Clock,
        *,
        max_wait: float,
        lease: float,
    ) -> None:
        """Take the parts; an event is held for at most `max_wait` seconds, a claim for `lease` seconds."""
        self._destinations = destinations
        self._decoders = decoders
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._max_wait = max_wait
        self._lease = timedelta(seconds=lease)

    def receive(self, attributes: Mapping[str, Any], data: Any) -> Announcement:
        """Announce the version of an event. Not done: the event source shall send it again.

        An event that no retry can make readable is logged and done, or it would come back for 24 hours.
        """
        deadline = self._clock.monotonic() + self._max_wait
        try:
            version = self._decode(attributes, data)
            return self.announce(version, deadline)
        except UndecodableEvent as error:
            _log.error("Undecodable event dropped: %s", error, extra={"event_id": attributes.get("id")})
            return Announcement(done=True)
        except StoreUnavailable as error:
            _log.error(
                "Store unavailable; the event will come again",
                extra={"event_id": attributes.get("id"), "detail": str(error)},
            )
            return Announcement(done=False)

    def announce(self, version: PromptVersion, deadline: float) -> Announcement:
        """Announce a version wherever it is not final yet, until `deadline` (monotonic seconds).

        Raises StoreUnavailable.
        """
        channels = route(version, self._destinations)
        now = self._clock.now()
        claims = {name: self._ledger.claim(version.key, name, now, self._lease) for name in channels}
        open_claims = [claim for claim in claims.values() if isinstance(claim, Claim)]
        finals = [claim is Taken.FINAL for claim in claims.values()].count(True)
        reached, pauses = [], []
        for claim in open_claims:
            parcel = Parcel(version, claim, concludes=finals + 1 == len(channels))
            outcome = self._destinations[claim.channel].submit(parcel, deadline)
            _report(version, claim.channel, outcome)
            if outcome.status.is_final:
                finals += 1
                reached.append(outcome.status)
            if outcome.retry_after is not None:
                pauses.append(outcome.retry_after)
        if finals == len(channels) and not open_claims and not version.announced:
            self._store.mark_announced(version.key)  # a crash came between the last outcome and the mark
        return Announcement(finals == len(channels), tuple(reached), max(pauses, default=None))

    def _decode(self, attributes: Mapping[str, Any], data: Any) -> PromptVersion:
        """Return the event's version; one without data is looked up in the store."""
        decoder = self._decoders.get(str(attributes.get("type")))
        if decoder is None:
            message = f"its type {attributes.get('type')!r} is not known here"
            raise UndecodableEvent(message)
        version = decoder(attributes, data)
        if isinstance(version, VersionKey):
            found = self._store.version(version)
            if found is None:
                message = f"it has no data, and there is no version {version} in the store"
                raise UndecodableEvent(message)
            return found
        return version


def _report(version: PromptVersion, channel: str, outcome: Outcome) -> None:
    """Write the line by which an operator answers "was v12 announced, and if not, why?"."""
    fields: dict[str, Any] = {"agent": version.agent_type, "version": version.version_number, "channel": channel}
    match outcome:
        case Outcome(status=Status.SENT):
            _log.info(SENT, extra={**fields, "message_id": outcome.message_id})
        case Outcome(reason=Reason.NOT_CONFIGURED):
            _log.warning(NOT_CONFIGURED, extra=fields)
        case Outcome(reason=Reason.NOT_PRODUCTION):
            _log.info(NOT_PRODUCTION, extra=fields)
        case _:
            level = logging.ERROR if outcome.status.is_final else logging.WARNING
            extra = {"reason": outcome.reason, "detail": outcome.detail, "final": outcome.status.is_final}
            _log.log(level, NOT_SENT, extra={**fields, **extra})
