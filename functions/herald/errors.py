"""Every error that Prompt Herald raises on purpose.

HeraldError
├── ConfigurationError      a setting is wrong; the process refuses to start
├── IdempotencyConflict     one Idempotency-Key, two different bodies
├── StoreUnavailable        the store did not answer; retry later
├── UndecodableEvent        an event that no retry will make readable
└── Undelivered             a request that got no answer from a channel; carries why
"""

from herald.model import Reason


class HeraldError(Exception):
    """Root of the tree; its text is a sentence that a person can act on and holds no secret."""


class ConfigurationError(HeraldError):
    """A setting cannot be used as it is. The text names the variable."""


class IdempotencyConflict(HeraldError):
    """An Idempotency-Key was used before with another body."""


class StoreUnavailable(HeraldError):
    """The document store could not do it now; nothing was half-made."""


class UndecodableEvent(HeraldError):
    """An event that is not a prompt version, now or when it is sent again."""


class Undelivered(HeraldError):
    """A channel was asked and gave no answer."""

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep the closed `reason` for the ledger and the `detail` for people."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
