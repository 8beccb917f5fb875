"""Version records as others may have written them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from herald import records
from herald.channels.discord import DiscordChannel, Webhook
from herald.model import ChangeType, PromptVersion, VersionKey
from infra.local.stand_in_rules import violations
from tests.fakes import NOW, WEBHOOK_URL, make_version

KEY = VersionKey("eai", 7)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(), st.integers(), max_size=2),
)


@given(st.dictionaries(st.sampled_from(sorted(PromptVersion.model_fields)), ODD))
def test_whatever_is_in_a_record_it_can_be_announced(fields: dict[str, Any]) -> None:
    """Its path says which version it is; the message keeps every limit."""
    version = records.read(KEY, fields, NOW)
    assert version.key == KEY
    channel = DiscordChannel(Webhook.parse(SecretStr(WEBHOOK_URL)), "production")
    assert violations(dict(channel.pack([version]).body)) == []


def test_a_record_of_ours_comes_back_whole() -> None:
    """Nothing is lost by tolerance."""
    version = make_version(7, change_type=ChangeType.CONFIG, config_bytes=9, announced=True)
    assert records.read(KEY, version.model_dump(), NOW) == version


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, ChangeType.PROMPT),
        ({"change_type": "BOTH"}, ChangeType.BOTH),
        ({"change_type": "text", "config_sha256": "x"}, ChangeType.CONFIG),
        ({"change_type": "text", "config_sha256": "x", "prompt_preview": "p"}, ChangeType.PROMPT),
    ],
)
def test_an_unknown_kind_of_change_is_derived(fields: dict[str, Any], kind: ChangeType) -> None:
    """From what is there."""
    assert records.read(KEY, fields, NOW).change_type is kind


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2025-08-20T14:00:00+02:00", NOW),
        ("2025-08-20T12:00:00", NOW),
        (datetime(2025, 8, 20, 12), NOW),  # noqa: DTZ001  without a zone, on purpose
        ("yesterday", datetime(2020, 1, 1, tzinfo=UTC)),
        (None, datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_people_write_it(written: object, read: datetime) -> None:
    """Or it is the document's own."""
    assert records.read(KEY, {"created_at": written}, datetime(2020, 1, 1, tzinfo=UTC)).created_at == read
