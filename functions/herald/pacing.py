"""When to send again: holds that a vendor asks for, and backoff where it says nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

_BACKOFF_BASE_SECONDS = 0.5
_BACKOFF_CAP_SECONDS = 30.0


class Hold:
    """Until when a destination, or all of one vendor's, is not to be asked; on the monotonic clock."""

    def __init__(self) -> None:
        """Start with no hold."""
        self.until = float("-inf")

    def extend(self, until: float) -> None:
        """Hold at least until then; a hold is never shortened."""
        self.until = max(self.until, until)


class Backoff:
    """Exponential backoff with full jitter, growing with consecutive failures."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """Take the source of jitter, so that tests can own it."""
        self._uniform = uniform
        self._failures = 0

    def reset(self) -> None:
        """Begin anew after a success."""
        self._failures = 0

    def next(self) -> float:
        """Return how many seconds to wait before the next try."""
        ceiling = min(_BACKOFF_CAP_SECONDS, _BACKOFF_BASE_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 16)  # past the cap; keeps 2**n small
        return self._uniform(0, ceiling)
