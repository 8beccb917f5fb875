"""A message in the terminal."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr
from rich.console import Console

from herald.channels.discord import COLOURS, TITLE, DiscordChannel, Webhook
from herald.model import ChangeType
from infra.local.card import render
from tests.fakes import WEBHOOK_URL, make_version

CHANNEL = DiscordChannel(Webhook.parse(SecretStr(WEBHOOK_URL)), "production", username="Herald")


def shown(*, colours: bool = False, **changes: Any) -> str:
    console = Console(width=100, record=True, color_system="truecolor" if colours else None, force_terminal=colours)
    with console.capture() as capture:
        console.print(render(CHANNEL.pack([make_version(**changes)]).body))
    return capture.get()


def test_the_card_reads_as_in_the_channel() -> None:
    """Sender, title, fields and bullets; Discord's markup is shown, not spelt out."""
    text = shown(reason="- a - b", author="A*da_")
    for part in ("Herald", TITLE, "👤 Author", "A*da_", "• a", "• b", "You are kind.", "eai in production"):
        assert part in text
    for markup in ("**", "```", "<t:", "\\"):
        assert markup not in text


def test_the_bar_has_the_embeds_colour() -> None:
    """The kind of change is seen from afar."""
    colour = COLOURS[ChangeType.PROMPT]
    assert f"\x1b[38;2;{colour >> 16};{colour >> 8 & 255};{colour & 255}m▌" in shown(colours=True)


def test_text_of_users_is_not_the_terminals_markup() -> None:
    """Square brackets stay what they are."""
    assert "[bold]x[/bold]" in shown(reason="[bold]x[/bold]", prompt_preview="[red]")
