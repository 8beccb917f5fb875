"""Discord's webhooks: versions → embeds, answers → verdicts. Pure.

Limits are those of Discord's developer documentation (discord.com/developers/docs): "Embed Limits" on the page
"Message resource", "Execute Webhook" on "Webhook resource", and the page "Rate Limits". They are counted in UTF-16
code units, the widest reading of "characters".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from pydantic import SecretStr

from herald.errors import ConfigurationError
from herald.markup import bullets, code_block, cut, plain, units
from herald.model import DISCORD, ChangeType, PromptVersion, Reason
from herald.ports import Answer, Request, Ruling, Verdict

MAX_EMBEDS = 10
MAX_TOTAL = 6_000
MAX_FIELD_VALUE = 1_024
MAX_USERNAME = 80

HOSTS = frozenset({"discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# v10 whatever the URL's own form: an unversioned URL means v6, where `retry_after` is in milliseconds.
_WEBHOOK_PATH = re.compile(r"/api/(?:v\d+/)?webhooks/(?P<id>\d+)/(?P<token>[\w-]+)/?")
_API = "/api/v10/webhooks"

_INVALID_THREAD = 10003  # "Unknown channel": with a thread_id, the thread
_ARCHIVED_THREAD = 50083
_DETAIL_CHARACTERS = 300

TITLE = "🚀 New Prompt Version Deployed"
COLOURS = {ChangeType.PROMPT: 0x5865F2, ChangeType.CONFIG: 0xFEE75C, ChangeType.BOTH: 0x57F287}
_LONGEST_NAME = 100
_LONGEST_WORD = 200


@dataclass(frozen=True)
class Webhook:
    """Where a webhook URL points, checked. `secret` is the id and token part of the path."""

    origin: str
    secret: SecretStr
    thread_id: str | None = None

    @classmethod
    def parse(cls, url: SecretStr, thread_id: str | None = None) -> Webhook:
        """Read a webhook URL as Discord's UI gives it; `thread_id` wins over the URL's own.

        https on one of Discord's hosts, or http on loopback for a stand-in. Raises ConfigurationError.
        """
        try:
            parts = urlsplit(url.get_secret_value().strip())
            host, _port = parts.hostname or "", parts.port
        except ValueError:
            raise ConfigurationError(_bad_url("it is not a URL")) from None
        if not ((parts.scheme == "https" and host in HOSTS) or (parts.scheme == "http" and host in _LOOPBACK)):
            raise ConfigurationError(_bad_url("it must be https on discord.com, or http on loopback for a stand-in"))
        if parts.username is not None or (host in HOSTS and parts.port not in {None, 443}):
            raise ConfigurationError(_bad_url("it must have no user name and no port"))
        path = _WEBHOOK_PATH.fullmatch(parts.path)
        if path is None:
            raise ConfigurationError(_bad_url("its path must be /api/webhooks/ID/TOKEN"))
        thread = thread_id or next(iter(parse_qs(parts.query).get("thread_id", [])), None)
        if thread is not None and not (thread.isascii() and thread.isdigit()):
            message = "DISCORD_THREAD_ID: a thread's id has digits only; copy it from the thread's menu in Discord."
            raise ConfigurationError(message)
        return cls(f"{parts.scheme}://{parts.netloc}", SecretStr(f"{path['id']}/{path['token']}"), thread)

    @property
    def url(self) -> SecretStr:
        """Return the URL to ask about the webhook."""
        return SecretStr(f"{self.origin}{_API}/{self.secret.get_secret_value()}")

    @property
    def execute_url(self) -> SecretStr:
        """Return the URL to POST messages to; `wait` makes Discord answer with the saved message."""
        query = {"wait": "true"} | ({"thread_id": self.thread_id} if self.thread_id else {})
        return SecretStr(f"{self.url.get_secret_value()}?{urlencode(query)}")


@dataclass(frozen=True)
class DiscordChannel:
    """One webhook and thread. Implements ports.Channel."""

    webhook: Webhook
    environment: str
    username: str | None = None
    avatar_url: str | None = None
    thread_fallback: bool = False
    name: str = DISCORD
    max_versions: int = MAX_EMBEDS

    def __post_init__(self) -> None:
        """Refuse what Discord would refuse in every message. Raises ConfigurationError."""
        name = self.username
        if name is not None and not _is_username(name):
            message = (
                "DISCORD_BOT_NAME: Discord takes 1 to 80 characters without 'clyde' or 'discord' in them, "
                "and neither 'everyone' nor 'here'."
            )
            raise ConfigurationError(message)
        if self.avatar_url is not None and urlsplit(self.avatar_url).scheme not in {"http", "https"}:
            message = "DISCORD_BOT_AVATAR_URL: it must be an http or https URL of an image."
            raise ConfigurationError(message)

    def pack(self, versions: Sequence[PromptVersion]) -> Request:
        """Render as many versions, from the first, as one message holds; see ports.Channel."""
        taken: list[tuple[PromptVersion, dict[str, Any]]] = []
        total = 0
        for version in versions[:MAX_EMBEDS]:
            rendered = embed(version, self.environment)
            total += size(rendered)
            if taken and total > MAX_TOTAL:
                break
            taken.append((version, rendered))
        taken.sort(key=lambda pair: pair[0].key)
        body: dict[str, Any] = {"embeds": [rendered for _, rendered in taken], "allowed_mentions": {"parse": []}}
        body |= {"username": self.username} if self.username else {}
        body |= {"avatar_url": self.avatar_url} if self.avatar_url else {}
        return Request(self.webhook.execute_url, body, tuple(version.key for version, _ in taken))

    def judge(self, answer: Answer) -> Verdict:
        """Say what Discord's answer means."""
        verdict = self._ruling(answer)
        if verdict.pause is None and answer.headers.get("x-ratelimit-remaining") == "0":
            return replace(verdict, pause=_seconds(answer.headers.get("x-ratelimit-reset-after")))
        return verdict

    def fallback(self) -> DiscordChannel:
        """Return the same webhook without its thread."""
        return replace(self, webhook=replace(self.webhook, thread_id=None))

    def _ruling(self, answer: Answer) -> Verdict:
        body = answer.body if isinstance(answer.body, dict) else {}
        status, code = answer.status, body.get("code")
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            message_id = body.get("id")
            return Verdict(Ruling.ACCEPTED, message_id=None if message_id is None else str(message_id))
        detail = _detail(status, body)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return _rate_limited(answer, body, detail)
        if self.webhook.thread_id and code in {_INVALID_THREAD, _ARCHIVED_THREAD}:
            return Verdict(Ruling.REROUTE if self.thread_fallback else Ruling.GONE, Reason.WEBHOOK_GONE, detail)
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            return Verdict(Ruling.GONE, Reason.WEBHOOK_GONE, detail)
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.REQUEST_TIMEOUT:
            return Verdict(Ruling.REJECTED, Reason.REJECTED, detail)
        return Verdict(Ruling.RETRY, Reason.SERVER_ERROR, detail)


def embed(version: PromptVersion, environment: str) -> dict[str, Any]:
    """Render one version. Every limit holds for every input; what is cut ends in `…`."""
    agent = plain(version.agent_type, _LONGEST_NAME)
    fields = [
        _field("🤖 Agent Type", agent, inline=True),
        _field("📦 Version", plain(version.version_display, _LONGEST_WORD), inline=True),
        _field("🔢 Version Number", str(version.version_number), inline=True),
        _field("👤 Author", plain(version.author, _LONGEST_NAME), inline=True),
        _field("🔄 Change Type", version.change_type.value, inline=True),
        _field("📝 Reason", cut(bullets(version.reason), MAX_FIELD_VALUE)),
    ]
    if version.change_type is not ChangeType.CONFIG and version.prompt_preview:
        fields.append(_field("📄 Prompt Preview", _preview(version)))
    fields.append(_field("⏰ Timestamp", f"<t:{math.floor(version.created_at.timestamp())}:F>"))
    return {
        "title": TITLE,
        "description": f"**{agent}** in {plain(environment, _LONGEST_NAME)}",
        "color": COLOURS[version.change_type],
        "fields": fields,
        "timestamp": version.created_at.isoformat(),
    }


def size(rendered: Mapping[str, Any]) -> int:
    """Return how much of a message's 6,000 an embed uses up."""
    texts = [rendered["title"], rendered["description"]]
    texts += [text for each in rendered["fields"] for text in (each["name"], each["value"])]
    return sum(units(text) for text in texts)


def _field(name: str, value: str, *, inline: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "inline": inline}


def _preview(version: PromptVersion) -> str:
    preview = (version.prompt_preview or "")[:200]
    is_cut = (version.prompt_bytes or 0) > len(preview.encode(errors="replace"))
    return code_block(preview + "…" if is_cut else preview, MAX_FIELD_VALUE)


def _is_username(name: str) -> bool:
    trimmed = name.strip().lower()
    reserved = trimmed in {"everyone", "here"} or "clyde" in trimmed or "discord" in trimmed
    return 0 < units(trimmed) <= MAX_USERNAME and not reserved


def _bad_url(why: str) -> str:
    return f"DISCORD_WEBHOOK_URL: {why}. Copy it from Discord: channel settings, Integrations, Webhooks."


def _rate_limited(answer: Answer, body: Mapping[str, Any], detail: str) -> Verdict:
    """Read a 429: its body says it exactly, its header in whole seconds; the edge's own 429 has only the header."""
    pause = _seconds(body.get("retry_after"))
    if pause is None:
        pause = _seconds(answer.headers.get("retry-after"))
    everywhere = body.get("global") is True or answer.headers.get("x-ratelimit-scope") == "global"
    return Verdict(Ruling.RETRY, Reason.RATE_LIMITED, detail, pause=pause, everywhere=everywhere)


def _seconds(value: Any) -> float | None:
    """Read a duration; None for what is no duration."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _detail(status: int, body: Mapping[str, Any]) -> str:
    """Say what Discord said: status, code, message and the places it names; for the ledger and the log."""
    parts = [str(status), *(str(body[name]) for name in ("code", "message") if name in body)]
    parts += [f"{path}: {message}" for path, message in _field_errors(body.get("errors"))]
    return cut(" ".join(parts), _DETAIL_CHARACTERS)


def _field_errors(errors: Any, path: str = "") -> list[tuple[str, str]]:
    """Flatten Discord's nested error object."""
    if not isinstance(errors, dict):
        return []
    found = [(path, str(each.get("message"))) for each in errors.get("_errors", []) if isinstance(each, dict)]
    for name, inner in errors.items():
        if name != "_errors":
            found += _field_errors(inner, f"{path}.{name}" if path else str(name))
    return found
