"""The clock of this machine."""

import time
from datetime import UTC, datetime
from threading import Condition


class SystemClock:
    """Implements ports.Clock."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    def wait(self, condition: Condition, seconds: float | None) -> None:
        """Wait on a held condition until it is notified or the seconds have passed."""
        condition.wait(seconds)
