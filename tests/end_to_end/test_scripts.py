"""The programs that people run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from herald.model import Claim, Outcome, Reason, Settlement, Status
from herald.stores.sqlite import SQLiteStore
from infra.local.stand_in import TOKEN as WEBHOOK_TOKEN
from infra.local.stand_in import DiscordStandIn, Options
from tests.conftest import ROOT
from tests.end_to_end.conftest import TOKEN, System, clean_environment
from tests.fakes import NOW, make_upload


def run(script: str, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        env=clean_environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def upload(system: System, *arguments: str, stdin: str = "", token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return run("upload_prompt.py", *arguments, stdin=stdin, HERALD_API=system.api, HERALD_TOKEN=token)


def test_a_prompt_is_uploaded_from_a_file_and_followed_to_the_channel(system: System, tmp_path: Path) -> None:
    """The author sees the version and that it was announced."""
    (tmp_path / "prompt.xml").write_text("<prompt>naïve</prompt>", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"temperature": 0.2}')
    files = ("--file", str(tmp_path / "prompt.xml"), "--config", str(tmp_path / "config.json"))
    result = upload(system, "--agent", "scripted", *files, "--author", "Ada", "--reason", "- a - b", "--wait", "20")
    assert result.returncode == 0, result.stderr
    assert "Saved scripted-20" in result.stdout
    assert "discord: sent" in result.stdout
    record = system.get("/api/v1/agents/scripted/versions/latest")
    assert (record["prompt_content"], record["config"]) == ("<prompt>naïve</prompt>", {"temperature": 0.2})
    assert (record["author"], record["reason"]) == ("Ada", "- a - b")


def test_a_prompt_comes_from_standard_input(system: System) -> None:
    """For pipelines."""
    assert upload(system, "--agent", "piped", "--file", "-", stdin="from a pipe").returncode == 0
    assert system.get("/api/v1/agents/piped/versions/1")["prompt_content"] == "from a pipe"


@pytest.mark.parametrize(
    ("arguments", "token", "words"),
    [
        (["--agent", "EAI", "--file", "-"], TOKEN, "agent_type"),
        (["--agent", "eai", "--file", "-"], "wrong", "UPLOAD_TOKENS"),
        (["--agent", "eai", "--file", "-"], "", "HERALD_TOKEN"),
        (["--agent", "eai", "--file", "/nowhere"], TOKEN, "/nowhere"),
        (["--agent", "eai"], TOKEN, "--file"),
        (["--agent", "eai", "--file", "-", "--api", "http://127.0.0.1:1"], TOKEN, "cannot be reached"),
    ],
)
def test_a_refused_upload_says_why(system: System, arguments: list[str], token: str, words: str) -> None:
    """In one sentence, with a failing exit code."""
    result = upload(system, *arguments, stdin="x", token=token)
    assert result.returncode != 0
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def check(webhook: str | None, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {"ENVIRONMENT": "production"} | ({"DISCORD_WEBHOOK_URL": webhook} if webhook else {}) | variables
    return run("test_discord_notifications.py", *arguments, **given)


def test_a_good_configuration_passes_and_a_test_message_arrives(stand_in: DiscordStandIn) -> None:
    """Without --send, nothing is posted."""
    assert check(stand_in.webhook_url).returncode == 0
    assert stand_in.messages == []
    result = check(stand_in.webhook_url, "--send", DISCORD_THREAD_ID="77")
    assert result.returncode == 0, result.stdout
    (message,) = stand_in.messages
    assert f"https://discord.com/channels/30/77/{message['message_id']}" in result.stdout
    assert "test" in message["body"]["embeds"][0]["fields"][5]["value"]


@pytest.mark.parametrize(
    ("options", "variables", "arguments", "words"),
    [
        (Options(), {"ENVIRONMENT": "staging"}, [], "ENVIRONMENT=production"),
        (Options(), {"DISCORD_WEBHOOK_URL": ""}, [], "copy its URL"),
        (Options(), {"DISCORD_WEBHOOK_URL": "https://example.com/api/webhooks/1/fake"}, [], "https on discord.com"),
        (Options(), {"DISCORD_WEBHOOK_URL": "http://127.0.0.1:1/api/webhooks/1/fake"}, [], "firewall"),
        (Options(), {"DISCORD_WEBHOOK_URL": "URL+wrong"}, [], "copy it anew"),
        (Options(gone_threads="5"), {"DISCORD_THREAD_ID": "5"}, ["--send"], "DISCORD_THREAD_ID"),
        (Options(status=500), {}, ["--send"], "Troubleshooting"),
        (Options(), {"DISCORD_BOT_NAME": "clyde"}, [], "DISCORD_BOT_NAME"),
    ],
)
def test_each_mistake_is_named_with_how_to_mend_it(
    options: Options, variables: dict[str, str], arguments: list[str], words: str
) -> None:
    """Exit code 1, and the token in no line."""
    with DiscordStandIn(options) as stand_in:
        given = {name: value.replace("URL+", stand_in.webhook_url) for name, value in variables.items()}
        result = check(stand_in.webhook_url, *arguments, **given)
    assert result.returncode == 1, result.stdout
    assert words in result.stdout
    assert WEBHOOK_TOKEN not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def outage(tmp_path: Path) -> Iterator[tuple[DiscordStandIn, dict[str, str]]]:
    """Give a stand-in, and the environment of a store with two failed versions and a sent one."""
    with DiscordStandIn() as stand_in:
        environment = {
            "STORE_URL": f"sqlite:///{tmp_path}/herald.db",
            "DISCORD_WEBHOOK_URL": stand_in.webhook_url,
            "ENVIRONMENT": "production",
        }
        store = SQLiteStore(str(tmp_path / "herald.db"))
        for status in (Status.FAILED, Status.SENT, Status.FAILED):
            key = store.save(make_upload(), None).key
            claim = store.claim(key, "discord", NOW, timedelta(minutes=5))
            assert isinstance(claim, Claim)
            outcome = Outcome(status=status, reason=Reason.WEBHOOK_GONE if status is Status.FAILED else None)
            store.settle([Settlement(claim=claim, outcome=outcome, concludes=True)], NOW)
        store.close()
        yield stand_in, environment


def test_what_failed_is_shown_reopened_and_sent_again(outage: tuple[DiscordStandIn, dict[str, str]]) -> None:
    """A dry run changes nothing; what was sent is not sent again; a second time there is nothing to do."""
    stand_in, environment = outage
    dry = run("redeliver.py", "--failed", "--dry-run", **environment)
    assert dry.returncode == 0
    assert "eai/1  discord  failed (webhook_gone)" in dry.stdout
    assert "2 would be reopened" in dry.stdout
    done = run("redeliver.py", "--failed", "--now", **environment)
    assert (done.returncode, "Sent 2," in done.stdout) == (0, True), done.stdout + done.stderr
    embeds = [embed for message in stand_in.messages for embed in message["body"]["embeds"]]
    assert [embed["fields"][2]["value"] for embed in embeds] == ["1", "3"]
    before = len(stand_in.messages)
    again = run("redeliver.py", "--failed", "--now", **environment)
    assert "Nothing to send again" in again.stdout
    assert len(stand_in.messages) == before


def test_reopened_versions_are_announced_by_the_next_reconcile(outage: tuple[DiscordStandIn, dict[str, str]]) -> None:
    """Which says what it did as JSON, and by its exit code."""
    stand_in, environment = outage
    assert run("redeliver.py", "--version", "eai/3", **environment).returncode == 0
    stand_in.options = Options(status=404)
    failed = run("reconcile.py", **environment)
    assert (failed.returncode, json.loads(failed.stdout)["failed"]) == (1, 1)
    stand_in.options = Options()
    assert run("redeliver.py", "--failed", "--since", "1h", **environment).returncode == 0
    done = run("reconcile.py", "--older-than", "0", **environment)
    assert (done.returncode, json.loads(done.stdout)["sent"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--version", "eai/2"], "Nothing to send again"),
        (["--version", "eai"], "eai/42"),
        (["--failed", "--since", "yesterday"], "30m, 2h, 7d"),
        (["--failed", "--suppressed"], "not allowed"),
        ([], "required"),
    ],
)
def test_what_cannot_be_sent_again_is_said(
    outage: tuple[DiscordStandIn, dict[str, str]], arguments: list[str], words: str
) -> None:
    """With a failing exit code."""
    result = run("redeliver.py", *arguments, **outage[1])
    assert result.returncode != 0
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("script", [["reconcile.py"], ["redeliver.py", "--failed"]])
def test_a_store_that_is_away_is_said(script: list[str]) -> None:
    """In one sentence."""
    result = run(*script, STORE_URL="sqlite:////nowhere/at/all.db")
    assert result.returncode == 2
    assert "STORE_URL" in result.stderr
    assert "Traceback" not in result.stderr
