"""Firestore's event, from captured ones: the emulator's base64, Eventarc's raw bytes."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from herald.errors import UndecodableEvent
from herald.events import firestore
from herald.model import ChangeType, PromptVersion, VersionKey
from tests.conftest import ROOT
from tests.fakes import NOW, make_upload


def captured(name: str) -> tuple[dict[str, str], str]:
    event = json.loads((ROOT / "tests/events" / f"{name}.json").read_text(encoding="utf-8"))
    headers = event["headers"].items()
    return {key.removeprefix("ce-"): value for key, value in headers if key.startswith("ce-")}, event["body"]


ATTRIBUTES, BODY = captured("firestore-version-created")


@pytest.mark.parametrize("data", [BODY, BODY.encode(), base64.b64decode(BODY)], ids=["text", "base64", "raw"])
def test_a_captured_event_is_the_record_that_was_saved(data: str | bytes) -> None:
    """Whole, whoever has sent it."""
    version = firestore.decode(ATTRIBUTES, data)
    assert version == make_upload(config='{"a":1}').version(1)
    assert isinstance(version, PromptVersion)
    assert type(version.created_at) is datetime
    assert ATTRIBUTES["type"] == firestore.TYPE


def test_a_record_written_by_hand_is_tolerated() -> None:
    """With defaults for what is missing, and for what is not what it should be."""
    version = firestore.decode(*captured("firestore-written-by-hand"))
    assert isinstance(version, PromptVersion)
    assert (str(version.key), version.author, version.reason) == ("eai/7", "Grace", None)
    assert version.version_display == "eai-v7"
    assert version.change_type is ChangeType.PROMPT
    assert version.created_at.tzinfo is UTC
    assert version.created_at > NOW


@pytest.mark.parametrize("data", [None, b"", ""])
def test_an_event_without_data_points_to_its_document(data: Any) -> None:
    """A large document may be missing from its event."""
    assert firestore.decode(ATTRIBUTES, data) == VersionKey("eai", 1)


@pytest.mark.parametrize(
    ("document", "data"),
    [
        ("agents/eai/contents/000001", BODY),
        ("agents/eai/versions/seven", BODY),
        ("agents/eai/versions/1", BODY),
        ("agents/eai/versions/000001/deliveries/discord", BODY),
        (None, BODY),
        ("agents/eai/versions/000001", "not base64!"),
        ("agents/eai/versions/000001", b"\n\xff\xff\xff\xff"),
        ("agents/eai/versions/000001", {"json": True}),
    ],
)
def test_what_is_no_version_is_refused_without_its_data(document: str | None, data: Any) -> None:
    """The text goes to the log."""
    with pytest.raises(UndecodableEvent) as raised:
        firestore.decode({**ATTRIBUTES, "document": document}, data)
    assert "You are kind" not in str(raised.value)
