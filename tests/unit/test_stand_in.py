"""The stand-in is as strict as Discord, or the tests on it prove nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local.stand_in import DiscordStandIn, Options
from infra.local.stand_in_rules import Bucket
from tests.conftest import ROOT

OK_EMBED = {"title": "t"}


def post(stand_in: DiscordStandIn, body: Any, query: str = "?wait=true") -> requests.Response:
    url = stand_in.webhook_url.replace("/api/", "/api/v10/") + query
    data = body if isinstance(body, str) else json.dumps(body)
    return requests.post(url, data=data, headers={"Content-Type": "application/json"}, timeout=5)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "_errors"),
        ({"embeds": []}, "_errors"),
        ({"embeds": [OK_EMBED] * 11}, "embeds"),
        ({"embeds": [{"title": "t" * 257}]}, "title"),
        ({"embeds": [{"description": "d" * 4097}]}, "description"),
        ({"embeds": [{"title": "🚀" * 129}]}, "title"),
        ({"embeds": [{"fields": [{"name": "n", "value": "v"}] * 26}]}, "fields"),
        ({"embeds": [{"fields": [{"name": "n" * 257, "value": "v"}]}]}, "name"),
        ({"embeds": [{"fields": [{"name": "n", "value": "v" * 1025}]}]}, "value"),
        ({"embeds": [{"fields": [{"name": "n", "value": ""}]}]}, "value"),
        ({"embeds": [{"fields": [{"name": "n"}]}]}, "value"),
        ({"embeds": [{"title": "t", "timestamp": "yesterday"}]}, "timestamp"),
        ({"embeds": [{"title": "t", "color": 2**24}]}, "color"),
        ({"embeds": [{"description": "d" * 3001}] * 2}, "embeds"),
        ({"embeds": [OK_EMBED], "username": "Clyde"}, "username"),
        ({"embeds": [OK_EMBED], "username": "x" * 81}, "username"),
        ({"embeds": [OK_EMBED], "allowed_mentions": {"parse": ["all"]}}, "allowed_mentions"),
        ({"content": "c" * 2001}, "content"),
    ],
)
def test_what_discord_refuses_is_refused(stand_in: DiscordStandIn, body: dict[str, Any], where: str) -> None:
    """With code 50035 and the place."""
    answer = post(stand_in, body)
    assert (answer.status_code, answer.json()["code"]) in {(400, 50035), (400, 50006)}
    assert where in json.dumps(answer.json()) or answer.json()["code"] == 50006
    assert stand_in.messages == []


def test_a_full_message_is_taken_and_answered_with_its_id(stand_in: DiscordStandIn) -> None:
    """Only with `wait`; else 204 and nothing."""
    body = {"embeds": [{"description": "d" * 600}] * 10, "allowed_mentions": {"parse": []}}
    assert post(stand_in, body).json()["id"] == stand_in.messages[0]["message_id"]
    bare = post(stand_in, body, "?thread_id=9")
    assert (bare.status_code, bare.content, stand_in.messages[1]["thread_id"]) == (204, b"", "9")


def test_the_webhooks_bucket_is_kept_and_told() -> None:
    """The sixth request in two seconds is a 429, with both forms of retry-after."""
    with DiscordStandIn(Options(bucket_period=60)) as stand_in:
        answers = [post(stand_in, {"embeds": [OK_EMBED]}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    assert 0 < answers[5].json()["retry_after"] <= 60
    assert int(answers[5].headers["Retry-After"]) >= answers[5].json()["retry_after"]


def test_the_channels_bucket_is_told_by_its_429_only() -> None:
    """As Discord keeps it: thirty a minute, in no header."""
    with DiscordStandIn(Options(channel_limit=1, bucket_limit=0)) as stand_in:
        first, second = (post(stand_in, {"embeds": [OK_EMBED]}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert "X-RateLimit-Remaining" not in first.headers
    assert second.headers["X-RateLimit-Scope"] == "shared"


def test_a_bucket_is_a_window_that_opens_again() -> None:
    """From its first request on."""
    now = [0.0]
    bucket = Bucket(2, 2.0, clock=lambda: now[0])
    assert [bucket.take(), bucket.take(), bucket.take()] == [0.0, 0.0, 2.0]
    now[0] = 2.0
    assert bucket.take() == 0.0


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v10/webhooks/2/local-stand-in-token", 404, 10015),
        ("/api/v10/webhooks/1/wrong", 401, 50027),
        ("/elsewhere", 404, 0),
    ],
)
def test_an_unknown_webhook_is_refused(stand_in: DiscordStandIn, path: str, status: int, code: int) -> None:
    """By GET and by POST."""
    url = stand_in.webhook_url.partition("/api")[0] + path
    for answer in (requests.get(url, timeout=5), requests.post(url, json={"content": "c"}, timeout=5)):
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_threads_can_be_gone_or_archived() -> None:
    """The two answers differ in status and code."""
    with DiscordStandIn(Options(gone_threads="7", archived_threads="8")) as stand_in:
        gone, archived = (post(stand_in, {"embeds": [OK_EMBED]}, f"?thread_id={n}") for n in (7, 8))
    assert (gone.status_code, gone.json()["code"]) == (404, 10003)
    assert (archived.status_code, archived.json()["code"]) == (400, 50083)


def test_a_dropped_answer_means_an_accepted_message() -> None:
    """The one window for a double; it is marked in the record."""
    with DiscordStandIn(Options(drop_rate=1.0)) as stand_in:
        with pytest.raises(requests.ConnectionError):
            post(stand_in, {"embeds": [OK_EMBED]})
        assert [message["dropped"] for message in stand_in.messages] == [True]


def test_it_runs_as_a_program_and_writes_what_it_accepted(tmp_path: Path) -> None:
    """Options on the command line; JSON lines; it ends on SIGTERM."""
    record = tmp_path / "accepted.jsonl"
    command = [sys.executable, str(ROOT / "infra/local/stand_in.py"), "--latency", "0.01", "--record", str(record)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout
        url = process.stdout.readline().removeprefix("ready webhook=").strip()
        assert requests.post(url.replace("/api/", "/api/v10/"), json={"embeds": [OK_EMBED]}, timeout=5).ok
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert json.loads(record.read_text())["body"] == {"embeds": [OK_EMBED]}
