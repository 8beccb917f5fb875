"""What Discord accepts as a webhook message, and the buckets of its rate limits.

From the developer documentation (discord.com/developers/docs): "Execute Webhook", "Embed Limits", "Rate Limits".
Written without the product's own limits, so that a mistake there cannot hide here.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

MAX_TOTAL = 6_000
MAX_COLOUR = 0xFFFFFF
_TEXT_LIMITS = {"title": 256, "description": 4_096}
_NAMES = {"everyone", "here"}
_MESSAGE_KEYS = {
    *("content", "username", "avatar_url", "tts", "embeds", "allowed_mentions", "components", "attachments"),
    *("flags", "thread_name", "applied_tags", "poll"),
}
_EMBED_KEYS = {
    *("title", "type", "description", "url", "timestamp", "color", "footer", "image", "thumbnail", "author", "fields"),
    "provider",
    "video",
}

UNKNOWN_KEY = "UNKNOWN_KEY"

Error = tuple[str, str, str]  # path, code, message


def length(text: str) -> int:
    """Return a text's length as Discord is assumed to count it: trimmed, in UTF-16 code units."""
    return len(text.strip().encode("utf-16-le", "surrogatepass")) // 2


def violations(body: Any) -> list[Error]:
    """Return everything that Discord would refuse in a message body; none: it is accepted."""
    if not isinstance(body, dict):
        return [("", "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")]
    errors = [(key, UNKNOWN_KEY, f"{key!r} is no field of a message") for key in body.keys() - _MESSAGE_KEYS]
    if not any(body.get(key) for key in ("content", "embeds", "components", "poll")):
        errors.append(("", "EMPTY_MESSAGE", "Cannot send an empty message"))
    errors += _text(body, "content", 2_000)
    errors += _username(body.get("username"))
    errors += _mentions(body.get("allowed_mentions"))
    embeds = body.get("embeds") or []
    if not isinstance(embeds, list) or not all(isinstance(embed, dict) for embed in embeds):
        return [*errors, ("embeds", "LIST_TYPE_CONVERT", "Only iterables of objects may be used in a ListType")]
    if len(embeds) > 10:  # noqa: PLR2004
        errors.append(("embeds", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length."))
    for index, embed in enumerate(embeds):
        errors += _embed(embed, f"embeds.{index}")
    if sum(length(text) for embed in embeds for text in _counted(embed)) > MAX_TOTAL:
        errors.append(("embeds", "MAX_EMBED_SIZE_EXCEEDED", f"Embed size exceeds maximum size of {MAX_TOTAL}"))
    return errors


def as_errors(found: list[Error]) -> dict[str, Any]:
    """Return violations in the nested form of Discord's error body."""
    root: dict[str, Any] = {}
    for path, code, message in found:
        place = root
        for part in filter(None, path.split(".")):
            place = place.setdefault(part, {})
        place.setdefault("_errors", []).append({"code": code, "message": message})
    return root


def _embed(embed: dict[str, Any], path: str) -> Iterator[Error]:
    for key in embed.keys() - _EMBED_KEYS:
        yield f"{path}.{key}", UNKNOWN_KEY, f"{key!r} is no field of an embed"
    for key, limit in _TEXT_LIMITS.items():
        yield from _text(embed, key, limit, path)
    yield from _text(embed.get("footer") or {}, "text", 2_048, f"{path}.footer")
    yield from _text(embed.get("author") or {}, "name", 256, f"{path}.author")
    colour = embed.get("color", 0)
    if type(colour) is not int or not 0 <= colour <= MAX_COLOUR:
        yield f"{path}.color", "NUMBER_TYPE_MAX", f"int value should be between 0 and {MAX_COLOUR}."
    if "timestamp" in embed and not _is_time(embed["timestamp"]):
        yield f"{path}.timestamp", "DATE_TIME_TYPE_PARSE", "Could not parse it. Should be ISO8601."
    fields = embed.get("fields", [])
    if len(fields) > 25:  # noqa: PLR2004
        yield f"{path}.fields", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length."
    for index, each in enumerate(fields):
        where = f"{path}.fields.{index}"
        for key in each.keys() - {"name", "value", "inline"}:
            yield f"{where}.{key}", UNKNOWN_KEY, f"{key!r} is no field of an embed's field"
        for key, limit in (("name", 256), ("value", 1_024)):
            yield from _text(each, key, limit, where, required=True)
        if not isinstance(each.get("inline", False), bool):
            yield f"{where}.inline", "BOOLEAN_TYPE_CONVERT", "Must be either true or false."


def _text(holder: dict[str, Any], key: str, limit: int, path: str = "", *, required: bool = False) -> Iterator[Error]:
    where, value = f"{path}.{key}".lstrip("."), holder.get(key)
    if value is None:
        if required:
            yield where, "BASE_TYPE_REQUIRED", "This field is required"
    elif not isinstance(value, str):
        yield where, "STRING_TYPE_CONVERT", "Could not interpret it as string."
    elif required and not length(value):
        yield where, "BASE_TYPE_REQUIRED", "This field is required"
    elif length(value) > limit:
        yield where, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length."


def _username(name: Any) -> Iterator[Error]:
    if name is None:
        return
    low = str(name).strip().lower()
    if not isinstance(name, str) or not 1 <= length(name) <= 80:  # noqa: PLR2004
        yield "username", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 80 in length."
    elif low in _NAMES or "clyde" in low or "discord" in low:
        yield "username", "USERNAME_INVALID_CONTAINS", "Username cannot contain it"


def _mentions(mentions: Any) -> Iterator[Error]:
    if mentions is None:
        return
    kinds = {"parse", "users", "roles", "replied_user"}
    if not isinstance(mentions, dict) or mentions.keys() - kinds:
        yield "allowed_mentions", "DICT_TYPE_CONVERT", "It is no allowed mentions object"
    elif set(mentions.get("parse", [])) - {"roles", "users", "everyone"}:
        yield "allowed_mentions.parse", "BASE_TYPE_CHOICES", "Value must be one of ('roles', 'users', 'everyone')."


def _counted(embed: dict[str, Any]) -> Iterator[str]:
    holders = [embed.get("title"), embed.get("description"), (embed.get("footer") or {}).get("text")]
    holders.append((embed.get("author") or {}).get("name"))
    holders += [each.get(key) for each in embed.get("fields", []) for key in ("name", "value")]
    return (text for text in holders if isinstance(text, str))


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def webhook_path(path: str) -> re.Match[str] | None:
    """Match a webhook's path: groups `version` (None: unversioned, which means v6), `id`, `token`."""
    return re.fullmatch(r"/api/(?:v(?P<version>\d+)/)?webhooks/(?P<id>\d+)/(?P<token>[\w-]+)/?", path)


@dataclass
class Bucket:
    """A fixed window of `limit` requests in `period` seconds, starting with a window's first request."""

    limit: int
    period: float
    clock: Callable[[], float] = time.monotonic
    _used: int = field(default=0, init=False)
    _started: float = field(default=-math.inf, init=False)

    def take(self) -> float:
        """Use up one request; return 0, or in how many seconds there is one again."""
        now = self.clock()
        if now >= self._started + self.period:
            self._started, self._used = now, 0
        if self.limit and self._used >= self.limit:
            return self._started + self.period - now
        self._used += 1
        return 0.0

    def headers(self) -> dict[str, str]:
        """Return what Discord tells of a bucket."""
        left = max(0.0, self._started + self.period - self.clock())
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.limit - self._used),
            "X-RateLimit-Reset": f"{time.time() + left:.3f}",
            "X-RateLimit-Reset-After": f"{left:.3f}",
            "X-RateLimit-Bucket": "stand-in-webhook-bucket",
        }
