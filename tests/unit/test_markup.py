"""Text of users as data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herald.markup import bullets, code_block, cut, plain, units, visible


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("- a - b", "• a\n• b"),
        ("- a\n- b", "• a\n• b"),
        ("- a\n  - b - c", "• a\n• b - c"),
        ("a - b", "a - b"),
        ("well-known - words", "well-known - words"),
        ("- well-known", "• well-known"),
        ("", "—"),
        (None, "—"),
        (" \u200b\n ", "—"),
    ],
)
def test_a_reason_as_a_list_becomes_bullet_lines(reason: str | None, shown: str) -> None:
    """Other text stays as its author wrote it; none is a dash."""
    assert bullets(reason) == shown


@pytest.mark.parametrize(
    ("author", "shown"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("**Ada**", r"\*\*Ada\*\*"),
        ("sales_agent", "sales_agent"),
        ("_ada_", r"\_ada\_"),
        ("@everyone", r"\@everyone"),
        ("[x](http://x)", r"\[x\]\(http\://x\)"),
        ("a\nb\x00c", "a bc"),
        ("# big", r"\# big"),
        (None, "—"),
    ],
)
def test_an_author_has_no_markup(author: str | None, shown: str) -> None:
    """On one line, with everything that means something escaped."""
    assert plain(author, 100) == shown


@given(st.text(), st.integers(1, 50))
def test_a_cut_is_never_too_long_and_shows(text: str, limit: int) -> None:
    """No surrogate is split; what was cut ends in an ellipsis."""
    short = cut(text, limit)
    assert units(short) <= limit
    assert short == text or short.endswith("…")
    assert all(not 0xD800 <= ord(c) <= 0xDFFF for c in short)


@given(st.text("`ab\n ", max_size=60), st.integers(20, 60))
def test_nothing_closes_the_code_block(text: str, limit: int) -> None:
    """The only fences are its own."""
    block = code_block(text, limit)
    assert units(block) <= limit
    assert block.count("```") == 2
    assert block.startswith("```\n")
    assert block.endswith("\n```")


def test_what_cannot_be_seen_is_a_dash() -> None:
    """Discord refuses a field without a visible character."""
    assert [visible(text) for text in ("", "\u200b\u200d", "\x00", "\ud800", None)] == ["—"] * 5
    assert visible(" é ") == "é"
