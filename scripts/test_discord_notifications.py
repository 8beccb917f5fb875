"""Check the Discord configuration of this environment, step by step; send one test message on --send.

    DISCORD_WEBHOOK_URL=… ENVIRONMENT=production scripts/test_discord_notifications.py --send

Exit code 0 only when everything holds. The webhook URL is never printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import requests

import _path  # noqa: F401  it makes herald importable
from herald import wiring
from herald.channels.discord import DiscordChannel
from herald.delivery import Courier
from herald.errors import ConfigurationError, Undelivered
from herald.model import ChangeType, PromptVersion
from herald.ports import Ruling
from herald.settings import Settings

MESSAGE_LINK = "https://discord.com/channels/{guild}/{channel}/{message}"


class BrokenError(Exception):
    """A step failed; the text says what is wrong, `mend` what to do."""

    def __init__(self, wrong: str, mend: str) -> None:
        super().__init__(wrong)
        self.mend = mend


def main() -> int:
    """Check each step in order; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--send", action="store_true", help="send one test message, and print its link")
    arguments = parser.parse_args()
    try:
        for line in _steps(send=arguments.send):
            print(f"ok    {line}")
    except BrokenError as error:
        print(f"WRONG {error}\n      {error.mend}")
        return 1
    except ConfigurationError as error:
        print(f"WRONG {error}\n      Every variable is explained in docs/DISCORD_NOTIFICATIONS.md.")
        return 1
    return 0


def _steps(*, send: bool) -> Iterator[str]:
    """Yield what holds. Raises BrokenError or ConfigurationError at what does not."""
    settings = Settings.load()
    yield "The variables can be read."
    if not settings.is_production:
        wrong = f"ENVIRONMENT is {settings.environment!r}: nothing is announced here."
        raise BrokenError(wrong, "Set ENVIRONMENT=production, or ANNOUNCE_OUTSIDE_PRODUCTION=true to announce anyway.")
    yield f"Versions are announced in environment {settings.environment!r}."
    channel = wiring.discord_channel(settings)
    if channel is None:
        wrong = "DISCORD_WEBHOOK_URL is not set."
        raise BrokenError(wrong, "Make a webhook in Discord (channel settings, Integrations, Webhooks); copy its URL.")
    yield "DISCORD_WEBHOOK_URL has the form of a webhook."
    webhook = _describe(channel, settings)
    yield f"The webhook answers; its name is {webhook.get('name')!r}."
    if send:
        yield f"A test message was sent: {_send(channel, settings, webhook)}"
    thread = channel.webhook.thread_id
    if thread and not send:
        yield f"Messages go to thread {thread}; only --send can tell whether Discord knows it."


def _describe(channel: DiscordChannel, settings: Settings) -> dict[str, Any]:
    """GET the webhook, which shows that it is alive and posts nothing."""
    try:
        answer = requests.get(
            channel.webhook.url.get_secret_value(),
            timeout=(settings.discord_connect_timeout, settings.discord_read_timeout),
            allow_redirects=False,
        )
    except requests.RequestException as error:
        wrong = f"Discord cannot be reached from here ({type(error).__name__})."
        raise BrokenError(wrong, "Check the network, the proxy and the firewall of this machine.") from None
    if answer.status_code in {401, 403, 404}:
        wrong = f"Discord does not know this webhook ({answer.status_code})."
        raise BrokenError(wrong, "It was deleted, or its URL was copied in part: copy it anew, or make a new one.")
    if not answer.ok:
        wrong = f"Discord answered {answer.status_code}."
        raise BrokenError(wrong, "Wait a minute and try again; discordstatus.com tells of outages.")
    body = answer.json()
    return body if isinstance(body, dict) else {}


def _send(channel: DiscordChannel, settings: Settings, webhook: dict[str, Any]) -> str:
    """Send a version that says it is a test, as announce would send it; return the message's link."""
    version = PromptVersion(
        agent_type="test",
        version_number=1,
        version_display="test-v1",
        change_type=ChangeType.PROMPT,
        author="test_discord_notifications.py",
        reason="This is a test: no prompt was changed",
        created_at=datetime.now(UTC),
        prompt_preview="If you can read this, announcements arrive here.",
    )
    courier = Courier(settings.discord_connect_timeout, settings.discord_read_timeout)
    try:
        answer = courier.post(channel.pack([version]))
    except Undelivered as error:
        wrong = f"The message was not sent: {error}."
        raise BrokenError(wrong, "Check the network, and try again.") from None
    verdict = channel.judge(answer)
    if verdict.ruling is Ruling.ACCEPTED:
        place = answer.body.get("channel_id") if isinstance(answer.body, dict) else None
        return MESSAGE_LINK.format(guild=webhook.get("guild_id"), channel=place, message=verdict.message_id)
    wrong = f"Discord refused the message: {verdict.detail}."
    if channel.webhook.thread_id and verdict.ruling in {Ruling.GONE, Ruling.REROUTE}:
        raise BrokenError(
            wrong,
            "The thread is unknown in the webhook's channel, or archived: check DISCORD_THREAD_ID (or thread_id in "
            "the URL), or set DISCORD_THREAD_FALLBACK=true to use the channel itself.",
        )
    raise BrokenError(wrong, "docs/DISCORD_NOTIFICATIONS.md, Troubleshooting, explains Discord's answers.")


if __name__ == "__main__":
    sys.exit(main())
