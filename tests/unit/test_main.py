"""The announce function, through functions-framework; and how both functions start."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from herald import wiring
from herald.model import Delivery, PromptVersion, Reason, Status, VersionKey
from infra.local.stand_in import TOKEN, DiscordStandIn
from tests.conftest import MAIN, FunctionClient, forget_parts
from tests.fakes import make_upload, make_version

EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "event-7",
    "ce-source": "/test",
    "ce-type": "prompt-herald.version.created.v1",
    "Content-Type": "application/json",
}


@pytest.fixture
def announce(function: FunctionClient, environment: pytest.MonkeyPatch, stand_in: DiscordStandIn) -> FlaskClient:
    """Give a client of the announce function, in production, with a webhook."""
    environment.setenv("ENVIRONMENT", "Production")
    environment.setenv("RECONCILE_AFTER", "0")
    environment.setenv("DISCORD_WEBHOOK_URL", stand_in.webhook_url)
    return function("announce_version")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Give the product's log lines."""
    monkeypatch.setattr(logging.getLogger("herald"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def saved() -> PromptVersion:
    return wiring.store().save(make_upload(), None)


def send(client: FlaskClient, version: PromptVersion, **headers: str) -> TestResponse:
    """Send the created-event of a version."""
    event = (
        EVENT | {"ce-subject": version.key.path} | {name.replace("_", "-"): value for name, value in headers.items()}
    )
    return client.post("/", data=version.model_dump_json(), headers=event)


def delivery(version: PromptVersion) -> Delivery:
    (found,) = wiring.store().deliveries(version.key)
    return found


def is_announced(key: VersionKey) -> bool:
    version = wiring.store().version(key)
    assert version is not None
    return version.announced


def test_a_version_is_announced_once_however_often_its_event_comes(
    announce: FlaskClient, stand_in: DiscordStandIn, log: pytest.LogCaptureFixture
) -> None:
    """The message id is kept, and the log line names agent, version and channel."""
    version = saved()
    assert [send(announce, version).status_code // 100 for _ in range(3)] == [2, 2, 2]
    assert len(stand_in.messages) == 1
    assert delivery(version).status is Status.SENT
    assert delivery(version).message_id == stand_in.messages[0]["message_id"]
    assert is_announced(version.key)
    (line,) = [record for record in log.records if record.message == "Discord notification sent successfully"]
    assert (vars(line)["agent"], vars(line)["version"], vars(line)["channel"]) == ("eai", 1, "discord")


@pytest.mark.parametrize(
    ("variables", "reason", "message"),
    [
        ({"ENVIRONMENT": "staging"}, Reason.NOT_PRODUCTION, "Not in production environment"),
        ({"ENVIRONMENT": ""}, Reason.NOT_PRODUCTION, "Not in production environment"),
        ({"DISCORD_WEBHOOK_URL": ""}, Reason.NOT_CONFIGURED, "Discord webhook URL not configured"),
    ],
)
def test_what_is_not_to_be_announced_is_on_record_with_the_reason(
    announce: FlaskClient,
    stand_in: DiscordStandIn,
    environment: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
    variables: dict[str, str],
    reason: Reason,
    message: str,
) -> None:
    """The event is done; nothing was sent."""
    for name, value in variables.items():
        environment.setenv(name, value)
    forget_parts()
    version = saved()
    assert send(announce, version).status_code // 100 == 2
    assert (delivery(version).status, delivery(version).reason) == (Status.SUPPRESSED, reason)
    assert is_announced(version.key)
    assert stand_in.messages == []
    assert message in [record.message for record in log.records]


def test_staging_announces_where_it_is_told_to(
    announce: FlaskClient, stand_in: DiscordStandIn, environment: pytest.MonkeyPatch
) -> None:
    """With ANNOUNCE_OUTSIDE_PRODUCTION; the message names the environment."""
    environment.setenv("ENVIRONMENT", "staging")
    environment.setenv("ANNOUNCE_OUTSIDE_PRODUCTION", "true")
    forget_parts()
    send(announce, saved())
    assert "staging" in stand_in.messages[0]["body"]["embeds"][0]["description"]


def test_a_lasting_failure_is_on_record_and_the_event_is_done(
    announce: FlaskClient, stand_in: DiscordStandIn, log: pytest.LogCaptureFixture
) -> None:
    """An operator finds Discord's own answer; the token is in no line."""
    stand_in.options = replace(stand_in.options, status=404)
    version = saved()
    assert send(announce, version).status_code // 100 == 2
    assert (delivery(version).status, delivery(version).reason) == (Status.FAILED, Reason.WEBHOOK_GONE)
    assert "404" in (delivery(version).detail or "")
    (line,) = [record for record in log.records if record.message == "Failed to send Discord notification"]
    assert line.levelname == "ERROR"
    assert TOKEN not in log.text


def test_a_passing_failure_asks_for_the_event_again(
    announce: FlaskClient, stand_in: DiscordStandIn, environment: pytest.MonkeyPatch
) -> None:
    """503 and a released claim; the next delivery of the event is announced."""
    environment.setenv("MAX_WAIT", "30")
    forget_parts()
    stand_in.options = replace(stand_in.options, rate_limit_rate=1.0, rate_limit_seconds=60.0)
    version = saved()
    answer = send(announce, version)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert (delivery(version).status, delivery(version).reason) == (Status.RELEASED, Reason.RATE_LIMITED)
    assert not is_announced(version.key)
    stand_in.options = replace(stand_in.options, rate_limit_rate=0.0)
    forget_parts()  # another instance, which knows nothing of the pause
    assert send(announce, version).status_code // 100 == 2
    assert (delivery(version).status, delivery(version).attempts) == (Status.SENT, 2)


def test_a_store_that_is_away_asks_for_the_event_again(announce: FlaskClient, environment: pytest.MonkeyPatch) -> None:
    """Nothing is sent that could not be recorded."""
    environment.setenv("STORE_URL", "sqlite:////nowhere/at/all.db")
    forget_parts()
    assert send(announce, make_version()).status_code == 503


@pytest.mark.parametrize(
    ("data", "headers", "words"),
    [
        ("not json", {}, ""),
        ("[]", {}, "data"),
        ("", {}, "no version eai/1 in the store"),
        ("{}", {}, "no version eai/1 in the store"),
        (json.dumps({"agent_type": "eai", "version_number": 1}), {}, "version_display"),
        (make_version(2).model_dump_json(), {}, "names eai/1, its record eai/2"),
        (make_version().model_dump_json(), {"ce-subject": "agents/eai/contents/000001"}, "agents/eai/contents"),
        (make_version().model_dump_json(), {"ce-subject": "agents/eai/versions/1"}, "not of the form"),
        (make_version().model_dump_json(), {"ce-type": "some.other.type"}, "some.other.type"),
        (make_version().model_dump_json(), {"ce-specversion": "9"}, ""),
    ],
)
def test_an_undecodable_event_is_logged_with_its_id_and_done(
    announce: FlaskClient,
    stand_in: DiscordStandIn,
    log: pytest.LogCaptureFixture,
    data: str,
    headers: dict[str, str],
    words: str,
) -> None:
    """It would come back for 24 hours, and be no more readable."""
    response = announce.post("/", data=data, headers=EVENT | {"ce-subject": make_version().key.path} | headers)
    assert response.status_code // 100 == 2, response.text
    (line,) = [record for record in log.records if record.levelname == "ERROR"]
    assert line.message.startswith("Undecodable event dropped")
    assert words in line.message
    assert vars(line)["event_id"] == "event-7"
    assert stand_in.messages == []


def test_an_event_without_data_is_announced_from_the_store(announce: FlaskClient, stand_in: DiscordStandIn) -> None:
    """An event source may send the name alone."""
    version = saved()
    response = announce.post("/", data="", headers=EVENT | {"ce-subject": version.key.path})
    assert response.status_code // 100 == 2
    assert delivery(version).status is Status.SENT
    assert len(stand_in.messages) == 1


def test_an_event_of_a_version_that_the_store_lacks_is_announced_from_its_data(
    announce: FlaskClient, stand_in: DiscordStandIn
) -> None:
    """The store may lag behind its events."""
    assert send(announce, make_version()).status_code // 100 == 2
    assert send(announce, make_version()).status_code // 100 == 2
    assert len(stand_in.messages) == 1


def test_reconcile_announces_what_no_event_has(
    announce: FlaskClient, function: FunctionClient, stand_in: DiscordStandIn
) -> None:
    """Oldest first, as one message; a second run finds nothing, and the late events send nothing."""
    versions = [saved() for _ in range(3)]
    reconcile = function("reconcile")
    summary = {"found": 3, "sent": 3, "suppressed": 0, "failed": 0, "left": 0, "complete": True}
    assert reconcile.post("/").get_json() == summary
    assert reconcile.post("/").get_json()["found"] == 0
    for version in versions:
        assert send(announce, version).status_code // 100 == 2
    embeds = [embed for message in stand_in.messages for embed in message["body"]["embeds"]]
    assert [embed["fields"][2]["value"] for embed in embeds] == ["1", "2", "3"]


def test_reconcile_is_started_by_post_only_and_answers_503_without_a_store(
    function: FunctionClient, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that is looked at announces nothing; the scheduler comes again."""
    environment.setenv("STORE_URL", "sqlite:////nowhere/at/all.db")
    reconcile = function("reconcile")
    environment.setattr(logging.getLogger("herald"), "propagate", True)
    assert reconcile.get("/").status_code == 405
    assert reconcile.post("/").status_code == 503
    assert "STORE_URL" in str([vars(record).get("detail") for record in caplog.records])


def test_a_person_who_posts_no_event_is_told_so(announce: FlaskClient) -> None:
    """Without a CloudEvent's headers it is a mistake of the caller's, and nothing comes again."""
    assert announce.post("/", json={"agent_type": "eai"}).status_code == 400


def test_a_fault_of_ours_asks_for_the_event_again(
    announce: FlaskClient, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug loses no version; its text reaches the log and not the caller."""

    def explode(*_: Any) -> None:
        message = "secret inner text"
        raise RuntimeError(message)

    monkeypatch.setattr("herald.announce.Announcer.announce", explode)
    response = send(announce, make_version())
    assert (response.status_code, "secret" in response.text) == (503, False)
    assert "Unexpected error" in [record.message for record in log.records]


def test_a_get_of_the_announce_function_is_405(announce: FlaskClient) -> None:
    """It is no page."""
    assert announce.get("/").status_code == 405


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"DISCORD_WEBHOOK_URL": "https://example.com/api/webhooks/1/fake-secret"}, "DISCORD_WEBHOOK_URL"),
        (
            {"DISCORD_BOT_NAME": "Clyde", "DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/fake-secret"},
            "NAME",
        ),
        ({"UPLOAD_TOKENS": "fake-secret"}, "UPLOAD_TOKENS"),
        ({"STORE_URL": "mysql://fake-secret"}, "STORE_URL"),
        ({"LEASE": "10"}, "LEASE"),
    ],
)
def test_a_wrong_setting_ends_the_process_at_its_start(
    environment: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    """With one sentence that names the variable and not its value."""
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        functions_framework.create_app("announce_version", str(MAIN), "cloudevent")  # type: ignore[no-untyped-call]
    assert named in str(end.value)
    assert "fake-secret" not in str(end.value)


def test_importing_main_reads_and_opens_nothing(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tool may import it anywhere."""
    environment.setenv("UPLOAD_TOKENS", "not json")
    environment.delitem(sys.modules, "main", raising=False)
    main = importlib.import_module("main")

    assert callable(main.save_prompt_version)
    assert list(tmp_path.iterdir()) == []
