"""Version keys and what is derived from a content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herald.model import Content, VersionKey
from tests.fakes import make_upload


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True), st.integers(1, 10**9))
def test_a_path_is_read_back_as_its_key(agent: str, number: int) -> None:
    """Whatever the agent and the number, past six digits too."""
    key = VersionKey(agent, number)
    assert VersionKey.from_path(key.path) == key
    assert str(key) == f"{agent}/{number}"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "agents/eai/versions/42",
        "agents/eai/versions/0000042",
        "agents/eai/versions/000000",
        "agents/eai/versions/-00042",
        "agents/eai/versions/٠٠٠٠٤٢",
        "agents//versions/000042",
        "agents/eai/contents/000042",
        "agents/eai/versions/000042/x",
    ],
)
def test_only_the_one_form_of_a_path_is_read(path: str) -> None:
    """Two spellings of one version must not get two claims."""
    with pytest.raises(ValueError, match="not of the form"):
        VersionKey.from_path(path)


def test_digests_tell_contents_apart() -> None:
    """An absent part differs from an empty one, and a prompt from a config."""
    digests = {
        Content(prompt_content=prompt, config=config).digest
        for prompt, config in (("a", None), (None, "a"), ("a", "a"), ("a", ""), ("", "a"))
    }
    assert len(digests) == 5
    assert Content(prompt_content="a").digest == Content(prompt_content="a").digest


def test_the_record_of_the_largest_upload_is_small() -> None:
    """It travels inside the event: well under 16 KiB."""
    upload = make_upload(prompt="🚀" * 65_536, config='"' + "x" * 65_534 + '"')
    upload = upload.model_copy(update={"reason": "🚀" * 2_000, "author": "🚀" * 100})
    record = upload.version(10**9).model_dump_json()
    assert len(record.encode()) < 12 * 1024
