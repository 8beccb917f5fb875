"""A Discord message as a person would read it in the channel, for a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

WIDTH = 78
_TIME_MARKUP = re.compile(r"<t:(\d+):F>")
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_FENCED = re.compile(r"^```\n(.*)\n```$", re.DOTALL)
_ESCAPED = re.compile(r"\\([^\sA-Za-z0-9])")


def render(message: Mapping[str, Any]) -> RenderableType:
    """Render a webhook message's body: the sender's line and one card an embed."""
    sender = Text.assemble(
        (str(message.get("username") or "Prompt Herald"), "bold"), " ", (" APP ", "white on #5865f2")
    )
    return Group(sender, *(_card(embed) for embed in message.get("embeds", [])), Text())


def _card(embed: Mapping[str, Any]) -> RenderableType:
    colour = f"#{int(embed.get('color', 0)):06x}"
    parts: list[RenderableType] = [Text(embed["title"], style="bold"), _markdown(embed["description"]), Text()]
    fields = embed.get("fields", [])
    parts += _rows([field for field in fields if field["inline"]])
    parts += [_block(field) for field in fields if not field["inline"]]
    parts.append(Text(_local(datetime.fromisoformat(embed["timestamp"])), style="dim"))
    return Panel(Padding(Group(*parts), (0, 1)), box=_BAR, border_style=colour, width=WIDTH, padding=0)


# Only a left edge: Discord's colour bar.
_BAR = box.Box("▌   \n▌   \n▌   \n▌   \n▌   \n▌   \n▌   \n▌   \n")


def _rows(fields: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Put inline fields side by side, three a row."""
    grid = Table.grid(expand=True)
    for _ in range(3):
        grid.add_column(ratio=1)
    for start in range(0, len(fields), 3):
        row = fields[start : start + 3]
        grid.add_row(*(Group(Text(each["name"], style="bold"), _markdown(each["value"]), Text()) for each in row))
    return [grid]


def _block(field: Mapping[str, Any]) -> RenderableType:
    fenced = _FENCED.match(field["value"])
    value: RenderableType = (
        Panel(Text(fenced[1]), box=box.SQUARE, border_style="dim", width=WIDTH - 6)
        if fenced
        else _markdown(field["value"])
    )
    return Group(Text(field["name"], style="bold"), value, Text())


def _markdown(text: str) -> Text:
    """Show what our messages use of Discord's markdown: bold, times, escapes."""
    timed = _TIME_MARKUP.sub(lambda match: _local(datetime.fromtimestamp(int(match[1])).astimezone()), text)
    shown = Text()
    for index, part in enumerate(_BOLD.split(timed)):
        shown.append(_ESCAPED.sub(r"\1", part), style="bold" if index % 2 else "")
    return shown


def _local(time: datetime) -> str:
    return f"{time.astimezone():%A, %d %B %Y %H:%M}"
