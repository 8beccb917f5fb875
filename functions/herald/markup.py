"""Text of users as data inside a chat's markup: no markdown, no mention, no way out of a code block."""

from __future__ import annotations

import re
import unicodedata

DASH = "—"
_MORE = "…"
_SPACE = "\u200b"  # zero width: keeps two backticks apart, and cannot be seen

# What Discord's markdown gives meaning to. An underscore inside a word (sales_agent) is left alone.
_MARKUP = re.compile(r"[\\*~`|<>@#\[\]():]|(?<![^\W_])_|_(?![^\W_])|^[-+]", re.MULTILINE)
_ITEM = re.compile(r"^\s*-\s+", re.MULTILINE)


def units(text: str) -> int:
    """Return a text's length in UTF-16 code units."""
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def cut(text: str, limit: int) -> str:
    """Return `text` in at most `limit` code units; what is cut ends in `…`."""
    if units(text) <= limit:
        return text
    kept = text.encode("utf-16-le", errors="surrogatepass")[: 2 * (limit - units(_MORE))]
    return kept.decode("utf-16-le", errors="ignore").rstrip() + _MORE


def visible(text: str | None) -> str:
    """Return a text that shows something: a dash for None, and for what has no visible character."""
    cleaned = "".join(c for c in text or "" if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"}).strip()
    return cleaned if any(unicodedata.category(c)[0] not in "CZ" for c in cleaned) else DASH


def plain(text: str | None, limit: int) -> str:
    """Return a text on one line, at most `limit` long before its markup is escaped."""
    line = cut(" ".join(visible(text).split()), limit)
    return _MARKUP.sub(r"\\\g<0>", line)


def bullets(text: str | None) -> str:
    """Turn `- a - b`, or lines of `- a`, into bullet lines; leave other text as it is."""
    shown = visible(text)
    if "\n" not in shown and shown.startswith("- "):
        shown = shown.replace(" - ", "\n- ")
    return _ITEM.sub("• ", shown)


def code_block(text: str, limit: int) -> str:
    """Return a code block, fences included, of at most `limit` code units that its text cannot close."""
    opening, closing = "```\n", "\n```"
    apart = re.sub(
        "(?<=`)`", _SPACE + "`", "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cs"})
    )
    return opening + cut(apart, limit - len(opening) - len(closing)) + closing
