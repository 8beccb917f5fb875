"""The embedded store's event, from a captured one."""

from __future__ import annotations

import json

from herald.events import local
from herald.model import ChangeType, PromptVersion
from tests.conftest import ROOT

EVENT = json.loads((ROOT / "tests/events/local-version-created.json").read_text(encoding="utf-8"))


def test_a_captured_event_is_read() -> None:
    """The relay and the function that reads its event may be of two releases."""
    version = local.decode(EVENT["attributes"], EVENT["data"])
    assert isinstance(version, PromptVersion)
    assert (str(version.key), version.change_type, version.author) == ("eai/42", ChangeType.BOTH, "Ada Lovelace")
    assert EVENT["attributes"]["type"] == local.TYPE


def test_fields_of_a_later_version_do_no_harm_and_old_ones_may_be_missing() -> None:
    """A rolling deployment has both."""
    required = ("agent_type", "version_number", "version_display", "change_type", "created_at")
    data = {name: EVENT["data"][name] for name in required} | {"diff": {"added": 3}}
    version = local.decode(EVENT["attributes"], data)
    assert isinstance(version, PromptVersion)
    assert (version.author, version.reason, version.prompt_preview) == (None, None, None)
