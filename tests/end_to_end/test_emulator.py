"""From an upload to the channel, through Google's own emulator and its Eventarc trigger."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest

from infra.local.emulator import Emulator, EmulatorError, find
from infra.local.stand_in import DiscordStandIn
from tests.conftest import FunctionClient
from tests.end_to_end.conftest import running_system
from tests.unit.test_firestore_event import ATTRIBUTES, BODY


@pytest.mark.usefixtures("emulator")  # skips, or fails in CI, where there is none
def test_an_upload_shows_in_the_channel_by_the_emulators_event() -> None:
    """No relay of ours is in that path; the record knows what became of it."""
    with DiscordStandIn() as stand_in, running_system("firestore", stand_in.webhook_url) as system:
        url = system.upload(author="Grace", reason="- a - b", config={"temperature": 0.2})
        delivery = system.delivered(url)
        assert delivery["status"] == "sent"
        (message,) = stand_in.messages
        assert message["message_id"] == delivery["message_id"]
        assert message["body"]["embeds"][0]["fields"][3]["value"] == "Grace"
        record = system.get(url)
        assert (record["announced"], record["config"]) == (True, {"temperature": 0.2})
        second = system.upload(author="Grace")
        assert system.delivered(second)["status"] == "sent"
        assert [version["version_number"] for version in system.get("/api/v1/agents/eai/versions")["versions"]] == [
            2,
            1,
        ]
        assert system.get("/api/v1/deliveries?status=sent")["deliveries"][0]["version_number"] == 2


def test_eventarcs_raw_bytes_and_refused_events_through_the_function(
    emulator: Emulator,
    environment: pytest.MonkeyPatch,
    function: FunctionClient,
    stand_in: DiscordStandIn,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The protobuf as Eventarc sends it is announced; another type and another path are logged, and done."""
    emulator.clear()
    environment.setenv("STORE_URL", emulator.store_url)
    environment.setenv("ENVIRONMENT", "production")
    environment.setenv("DISCORD_WEBHOOK_URL", stand_in.webhook_url)
    announce = function("announce_version")
    environment.setattr(logging.getLogger("herald"), "propagate", True)
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()} | {"Content-Type": "application/protobuf"}
    refused = ({"ce-type": "google.cloud.firestore.document.v1.deleted"}, {"ce-document": "agents/eai/contents/000001"})
    for change in ({}, *refused):
        answer = announce.post("/", data=base64.b64decode(BODY), headers=headers | change)
        assert answer.status_code // 100 == 2
    assert len(stand_in.messages) == 1
    dropped = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(dropped) == 2
    assert all(message.startswith("Undecodable event dropped") for message in dropped)


def test_a_missing_emulator_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And where Java is missing, too."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_JAR", str(tmp_path / "nothing.jar"))
    with pytest.raises(EmulatorError, match="gcloud components install"):
        find()
    (tmp_path / "nothing.jar").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulatorError, match="Java"):
        find()
