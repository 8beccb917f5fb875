"""Which channels a version goes to. Pure."""

from collections.abc import Iterable

from herald.model import PromptVersion


def route(_version: PromptVersion, channels: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the channels for a version: every channel there is, by name."""
    return tuple(sorted(channels))
