"""What a benchmark finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True)
class Row:
    """One figure. `met`: whether it is as good as its target; None where it has none."""

    section: str
    case: str
    measure: str
    value: float
    unit: str = ""
    target: str = ""
    met: bool | None = None


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of at least two values."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]
