"""A thousand versions at once: how many messages, how long, and what others make of the same."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr

from herald.channels.discord import DiscordChannel, Webhook
from herald.model import PromptVersion
from herald.stores.sqlite import SQLiteStore
from infra.local.stand_in import TOKEN, WEBHOOK_ID, DiscordStandIn, Options
from tests.benchmarks.rows import Row
from tests.end_to_end.conftest import running_system
from tests.fakes import make_upload

REASON, PROMPT = "r" * 150, "p" * 300
LATENCY, LIMIT, PERIOD = 0.08, 5, 2.0
CHANNEL_LIMIT, CHANNEL_PERIOD = 30, 60.0
TARGET = 1.10
HANDFUL = 5
PATIENCE_SECONDS = 400.0
DISCORD = Options(latency=LATENCY, bucket_limit=LIMIT, bucket_period=PERIOD)
SLOW_CHANNEL = replace(DISCORD, channel_limit=CHANNEL_LIMIT, channel_period=CHANNEL_PERIOD)

Send = Callable[[list[dict[str, Any]], str], None]


def measure() -> Iterator[Row]:
    """Send 1,000 versions, then 200 beside a plain loop and two libraries."""
    yield from _ours(1_000, DISCORD, "1,000 versions")
    yield from _ours(200, DISCORD, "200 versions", ratio=None)  # its 21st message opens one more window: for comparison
    contenders: dict[str, Send] = {
        "200, a plain requests.post each": _plain,
        "200, discord-webhook": _discord_webhook,
        "200, apprise": _apprise,
    }
    with ThreadPoolExecutor(len(contenders)) as pool:  # they sleep for most of the time
        for rows in pool.map(lambda item: list(_other(*item)), contenders.items()):
            yield from rows


def measure_with_channel_bucket() -> Iterator[Row]:
    """Send 1,000 versions into a channel that takes 30 messages a minute and does not say so."""
    yield from _ours(1_000, SLOW_CHANNEL, "1,000, channel bucket")


def _ours(count: int, options: Options, case: str, ratio: float | None = TARGET) -> Iterator[Row]:
    """Fill a store, start the system on it, and wait until the last version has arrived."""
    with tempfile.TemporaryDirectory() as folder, DiscordStandIn(options) as stand_in:
        file = Path(folder) / "herald.db"
        store = SQLiteStore(str(file))
        upload = make_upload(prompt=PROMPT, created_at=datetime.now(UTC)).model_copy(update={"reason": REASON})
        versions = [store.save(upload, None) for _ in range(count)]
        store.close()
        with (Path(folder) / "log").open("w") as log, running_system(file, stand_in.webhook_url, log):
            stand_in.wait_for(lambda messages: _arrived(messages) >= count, PATIENCE_SECONDS)
    yield from _rows(case, stand_in, count, is_ours=True)
    ideal, fewest = _ideal(versions, options)
    seconds = _seconds(stand_in)
    yield Row("burst", case, "fewest messages possible", fewest)
    yield Row("burst", case, "ideal time", round(ideal, 1), "s")
    target, met = (f"{ratio:.2f} at most", seconds / ideal <= ratio) if ratio else ("", None)
    yield Row("burst", case, "time : ideal", round(seconds / ideal, 3), "x", target, met)


def _other(case: str, send: Send) -> Iterator[Row]:
    """Let another program send the same versions, one message each, as it is made to."""
    embeds = [body["embeds"][0] for body in map(_body, _versions(200))]
    with DiscordStandIn(replace(DISCORD, ignore_unknown=True)) as stand_in:
        send(embeds, stand_in.webhook_url.replace("/api/", "/api/v10/"))  # without, times are in milliseconds
    yield from _rows(case, stand_in, 200, is_ours=False)


def _rows(case: str, stand_in: DiscordStandIn, count: int, *, is_ours: bool) -> Iterator[Row]:
    messages = stand_in.messages
    announced = Counter(_number(embed) for message in messages for embed in message["body"]["embeds"])
    most_refused = HANDFUL if stand_in.options.channel_limit else 0
    counted = {
        "lost": (count - len(announced), 0),
        "doubled": (sum(announced.values()) - len(announced), 0),
        "429s": (stand_in.counts["status 429"], most_refused),
    }
    yield Row("burst", case, "delivered", len(announced))
    for name, (value, most) in counted.items():
        target, met = (f"{most} at most", value <= most) if is_ours else ("", None)
        yield Row("burst", case, name, value, "", target, met)
    yield Row("burst", case, "messages", len(messages))
    yield Row("burst", case, "versions a message", round(len(announced) / max(1, len(messages)), 2))
    yield Row("burst", case, "time", round(_seconds(stand_in), 1), "s")


def _seconds(stand_in: DiscordStandIn) -> float:
    """Return how long it took from the first request to the last acceptance."""
    messages = stand_in.messages
    return float(messages[-1]["at"] - messages[0]["at"]) + LATENCY if messages else 0.0


def _ideal(versions: list[PromptVersion], options: Options) -> tuple[float, int]:
    """Return the least time at the buckets' pace, in seconds, and the fewest messages that hold the versions."""
    channel, left, fewest = _channel(), list(versions), 0
    while left:
        left, fewest = left[len(channel.pack(left).carries) :], fewest + 1
    within = fewest
    seconds = 0.0
    if options.channel_limit:
        windows = math.ceil(fewest / options.channel_limit) - 1
        seconds, within = windows * options.channel_period, fewest - windows * options.channel_limit
    windows = math.ceil(within / LIMIT) - 1
    return seconds + windows * PERIOD + (within - windows * LIMIT) * LATENCY, fewest


def _plain(embeds: list[dict[str, Any]], url: str) -> None:
    for embed in embeds:
        requests.post(url, json={"embeds": [embed]}, timeout=10)


def _discord_webhook(embeds: list[dict[str, Any]], url: str) -> None:
    from discord_webhook import DiscordWebhook  # noqa: PLC0415  installed for the bench only

    for embed in embeds:
        webhook = DiscordWebhook(url=url, rate_limit_retry=True)
        webhook.add_embed(embed)
        webhook.execute()


def _apprise(embeds: list[dict[str, Any]], url: str) -> None:
    import apprise  # noqa: PLC0415  installed for the bench only
    from apprise.plugins.discord import NotifyDiscord  # noqa: PLC0415

    NotifyDiscord.notify_url = url.rpartition(f"/{WEBHOOK_ID}/")[0]
    sender = apprise.Apprise()
    sender.add(f"discord://{WEBHOOK_ID}/{TOKEN}?format=markdown")
    for embed in embeds:
        text = "\n".join(f"# {field['name']}\n{field['value']}" for field in embed["fields"])
        sender.notify(title=embed["title"], body=text)


def _versions(count: int) -> list[PromptVersion]:
    upload = make_upload(prompt=PROMPT).model_copy(update={"reason": REASON})
    return [upload.version(number) for number in range(1, count + 1)]


def _channel() -> DiscordChannel:
    return DiscordChannel(Webhook.parse(SecretStr("https://discord.com/api/webhooks/1/fake")), "production")


def _body(version: PromptVersion) -> dict[str, Any]:
    return dict(_channel().pack([version]).body)


def _arrived(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["body"]["embeds"]) for message in messages)


def _number(embed: dict[str, Any]) -> str:
    """Return the version number, wherever in the embed it stands."""
    fields = {field["name"].strip(": "): field["value"] for field in embed.get("fields", [])}
    return str(fields.get("🔢 Version Number", fields or embed.get("description")))
