"""The only outbound HTTP, against a real server."""

from __future__ import annotations

import json
import socket
import traceback

import pytest
from pydantic import SecretStr

from herald.delivery import Courier
from herald.errors import Undelivered
from herald.model import Reason
from herald.pacing import Backoff
from herald.ports import Request
from infra.local.stand_in import TOKEN, DiscordStandIn, Options

BODY = {"embeds": [{"title": "hello"}]}


def post(url: str, read_timeout: float = 5.0) -> object:
    return Courier(1.0, read_timeout).post(Request(SecretStr(url), BODY, ()))


def test_an_answer_comes_back_with_status_headers_and_body(stand_in: DiscordStandIn) -> None:
    """Header names are in lower case; JSON is decoded."""
    answer = Courier(1.0, 5.0).post(Request(SecretStr(stand_in.webhook_url + "?wait=true"), BODY, ()))
    assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, "4")
    assert answer.body["id"] == stand_in.messages[0]["message_id"]


def test_an_edge_page_is_an_answer_without_a_body(stand_in: DiscordStandIn) -> None:
    """A 502 in HTML is no crash."""
    stand_in.options = Options(error_rate=1.0)
    bodies = {
        json.dumps(Courier(1.0, 5.0).post(Request(SecretStr(stand_in.webhook_url), BODY, ())).body) for _ in range(20)
    }
    assert "null" in bodies


@pytest.mark.parametrize(
    ("options", "reason"),
    [(Options(hang=3.0), Reason.TIMEOUT), (Options(reset_rate=1.0), Reason.UNREACHABLE)],
)
def test_no_answer_says_why_and_keeps_the_token(stand_in: DiscordStandIn, options: Options, reason: Reason) -> None:
    """Neither the error's text nor its printed trace holds the URL."""
    stand_in.options = options
    with pytest.raises(Undelivered) as caught:
        post(stand_in.webhook_url, read_timeout=0.2)
    assert caught.value.reason is reason
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_refused_connection_is_unreachable() -> None:
    """Nobody listens on that port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Undelivered) as caught:
        post(f"http://127.0.0.1:{port}/api/webhooks/1/{TOKEN}")
    assert caught.value.reason is Reason.UNREACHABLE


def test_backoff_grows_to_a_cap_and_begins_anew_after_a_success() -> None:
    """Full jitter: anywhere between nothing and the ceiling."""
    backoff = Backoff(lambda low, high: high - low)
    pauses = [backoff.next() for _ in range(9)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    backoff.reset()
    assert backoff.next() == 0.5
