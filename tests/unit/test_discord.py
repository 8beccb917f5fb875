"""Discord's side of it: what a message looks like, what an answer means, what a URL may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from herald.channels.discord import DiscordChannel, Webhook, embed
from herald.errors import ConfigurationError
from herald.model import ChangeType, PromptVersion, Reason
from herald.ports import Ruling, Verdict
from infra.local.stand_in_rules import violations
from tests.fakes import FAKE_TOKEN, WEBHOOK_URL, answer, make_version

CHANNEL = DiscordChannel(Webhook.parse(SecretStr(WEBHOOK_URL)), "production")

anything = st.text(st.characters(exclude_categories=()), max_size=2_500)
versions = st.builds(
    make_version,
    st.integers(1, 10**9),
    agent_type=st.text(min_size=1, max_size=200),
    version_display=anything,
    author=st.none() | anything,
    reason=st.none() | anything,
    prompt_preview=st.none() | st.text(max_size=200) | st.text("`\n", max_size=200),
    prompt_bytes=st.none() | st.integers(0, 10**6),
    change_type=st.sampled_from(ChangeType),
    created_at=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)


def fields(version: PromptVersion) -> dict[str, str]:
    return {field["name"]: field["value"] for field in embed(version, "production")["fields"]}


def test_the_message_as_the_team_lead_reads_it() -> None:
    """Title, description, fields and their order."""
    version = make_version(42, reason="- shorter - kinder", prompt_preview="x" * 200, prompt_bytes=900)
    assert embed(version, "production") == {
        "title": "🚀 New Prompt Version Deployed",
        "description": "**eai** in production",
        "color": 0x5865F2,
        "timestamp": "2025-08-20T12:00:00+00:00",
        "fields": [
            {"name": "🤖 Agent Type", "value": "eai", "inline": True},
            {"name": "📦 Version", "value": "eai-2025-08-20-v42", "inline": True},
            {"name": "🔢 Version Number", "value": "42", "inline": True},
            {"name": "👤 Author", "value": "Ada Lovelace", "inline": True},
            {"name": "🔄 Change Type", "value": "prompt", "inline": True},
            {"name": "📝 Reason", "value": "• shorter\n• kinder", "inline": False},
            {"name": "📄 Prompt Preview", "value": "```\n" + "x" * 200 + "…\n```", "inline": False},
            {"name": "⏰ Timestamp", "value": "<t:1755691200:F>", "inline": False},
        ],
    }


def test_a_change_of_config_has_no_preview_and_its_own_colour() -> None:
    """Three kinds of change, three colours."""
    assert "📄 Prompt Preview" not in fields(make_version(change_type=ChangeType.CONFIG, prompt_preview=None))
    assert len({embed(make_version(change_type=kind), "production")["color"] for kind in ChangeType}) == 3


def test_a_whole_prompt_is_not_shown_as_cut() -> None:
    """`…` stands only where something is missing."""
    assert fields(make_version(prompt_preview="äöü", prompt_bytes=6))["📄 Prompt Preview"] == "```\näöü\n```"


def test_a_missing_author_or_reason_is_a_dash() -> None:
    """Records written by hand may lack them."""
    shown = fields(make_version(author=None, reason="  \n"))
    assert (shown["👤 Author"], shown["📝 Reason"]) == ("—", "—")


@settings(max_examples=150, deadline=None)
@given(st.lists(versions, min_size=1, max_size=14))
def test_every_limit_holds_for_every_input(given_versions: list[PromptVersion]) -> None:
    """Packed messages are valid, keep the order of arrival, drop nothing, and are as full as can be."""
    waiting, taken = list(given_versions), 0
    while waiting:
        request = CHANNEL.pack(waiting)
        count = len(request.carries)
        assert 1 <= count <= 10
        assert violations(dict(request.body)) == []
        assert sorted(request.carries) == sorted(version.key for version in waiting[:count])
        assert list(request.carries) == sorted(request.carries)
        if count < min(10, len(waiting)):
            assert sum(_size(version) for version in waiting[: count + 1]) > 6_000
        waiting, taken = waiting[count:], taken + count
    assert taken == len(given_versions)


@settings(max_examples=150, deadline=None)
@given(versions)
def test_no_text_of_a_user_gets_out(version: PromptVersion) -> None:
    """No mention, no markdown from the author, no way out of the code block."""
    assert CHANNEL.pack([version]).body["allowed_mentions"] == {"parse": []}
    shown = fields(version)
    unescaped = shown["👤 Author"]
    for escaped in (rf"\{mark}" for mark in "\\*~`|<>@#[]():_-+"):
        unescaped = unescaped.replace(escaped, "")
    assert not set("*~`|<>@#[]()") & set(unescaped)
    if preview := shown.get("📄 Prompt Preview"):
        assert preview.startswith("```\n")
        assert preview.endswith("\n```")
        assert "```" not in preview[4:-4]


def test_ordinary_versions_of_a_burst_fit_ten_to_a_message() -> None:
    """Reasons of 150 characters and previews of 200: group commit's full effect."""
    burst = [make_version(n, reason="r" * 150, prompt_preview="p" * 200, prompt_bytes=999) for n in range(1, 21)]
    assert len(CHANNEL.pack(burst).carries) == 10


@pytest.mark.parametrize(
    ("given_answer", "verdict"),
    [
        (answer(200, {"id": "7"}), Verdict(Ruling.ACCEPTED, message_id="7")),
        (answer(204), Verdict(Ruling.ACCEPTED)),
        (
            answer(200, {"id": "7"}, x_ratelimit_remaining="0", x_ratelimit_reset_after="1.25"),
            Verdict(Ruling.ACCEPTED, message_id="7", pause=1.25),
        ),
        (
            answer(200, {"id": "7"}, x_ratelimit_remaining="1", x_ratelimit_reset_after="1.25"),
            Verdict(Ruling.ACCEPTED, message_id="7"),
        ),
        (
            answer(429, {"retry_after": 0.35}, retry_after="1"),
            Verdict(Ruling.RETRY, Reason.RATE_LIMITED, "429", pause=0.35),
        ),
        (answer(429, None, retry_after="12"), Verdict(Ruling.RETRY, Reason.RATE_LIMITED, "429", pause=12.0)),
        (answer(429, {"retry_after": "soon"}), Verdict(Ruling.RETRY, Reason.RATE_LIMITED, "429")),
        (
            answer(429, {"retry_after": 1, "global": True}),
            Verdict(Ruling.RETRY, Reason.RATE_LIMITED, "429", pause=1.0, everywhere=True),
        ),
        (
            answer(429, {"retry_after": 1}, x_ratelimit_scope="global"),
            Verdict(Ruling.RETRY, Reason.RATE_LIMITED, "429", pause=1.0, everywhere=True),
        ),
        (answer(401, {"code": 50027}), Verdict(Ruling.GONE, Reason.WEBHOOK_GONE, "401 50027")),
        (answer(403), Verdict(Ruling.GONE, Reason.WEBHOOK_GONE, "403")),
        (answer(404, {"code": 10015}), Verdict(Ruling.GONE, Reason.WEBHOOK_GONE, "404 10015")),
        (answer(413), Verdict(Ruling.REJECTED, Reason.REJECTED, "413")),
        (answer(408), Verdict(Ruling.RETRY, Reason.SERVER_ERROR, "408")),
        (answer(302), Verdict(Ruling.RETRY, Reason.SERVER_ERROR, "302")),
        (answer(500, {"message": "oops"}), Verdict(Ruling.RETRY, Reason.SERVER_ERROR, "500 oops")),
        (answer(502), Verdict(Ruling.RETRY, Reason.SERVER_ERROR, "502")),
    ],
)
def test_what_each_answer_means(given_answer: Any, verdict: Verdict) -> None:
    """The facts of Discord's contract, one row each."""
    assert CHANNEL.judge(given_answer) == verdict


@pytest.mark.parametrize(
    "body", [{"code": 10003, "message": "Unknown Channel"}, {"code": 50083, "message": "Thread is archived"}]
)
def test_a_lost_thread_fails_or_falls_back(body: dict[str, Any]) -> None:
    """As DISCORD_THREAD_FALLBACK says; without a thread nothing can fall back."""
    threaded = replace(CHANNEL, webhook=replace(CHANNEL.webhook, thread_id="9"))
    lost = answer(404 if body["code"] == 10003 else 400, body)
    assert threaded.judge(lost).ruling is Ruling.GONE
    forgiving = replace(threaded, thread_fallback=True)
    assert forgiving.judge(lost).ruling is Ruling.REROUTE
    assert forgiving.fallback().judge(lost).ruling is not Ruling.REROUTE


def test_a_rejection_carries_discords_own_words() -> None:
    """Which field of which embed, and why."""
    errors = {"embeds": {"0": {"title": {"_errors": [{"code": "X", "message": "Must be 256 or fewer in length."}]}}}}
    detail = CHANNEL.judge(answer(400, {"code": 50035, "message": "Invalid Form Body", "errors": errors})).detail
    assert detail == "400 50035 Invalid Form Body embeds.0.title: Must be 256 or fewer in length."


@pytest.mark.parametrize(
    ("url", "thread", "sent_to"),
    [
        ("https://discord.com/api/webhooks/42/fake-token", None, "https://discord.com/api/v10/webhooks/42/fake-token?wait=true"),
        ("https://canary.discord.com/api/v6/webhooks/42/t?thread_id=7", None, "https://canary.discord.com/api/v10/webhooks/42/t?wait=true&thread_id=7"),
        ("https://ptb.discord.com/api/webhooks/42/t?thread_id=7", "8", "https://ptb.discord.com/api/v10/webhooks/42/t?wait=true&thread_id=8"),
        ("http://127.0.0.1:9/api/webhooks/42/t/", None, "http://127.0.0.1:9/api/v10/webhooks/42/t?wait=true"),
        (" https://discordapp.com/api/webhooks/42/t\n", None, "https://discordapp.com/api/v10/webhooks/42/t?wait=true"),
    ],
)  # fmt: skip
def test_messages_go_to_v10_whatever_the_urls_form(url: str, thread: str | None, sent_to: str) -> None:
    """On an unversioned URL times would be in milliseconds."""
    assert Webhook.parse(SecretStr(url), thread).execute_url.get_secret_value() == sent_to


@pytest.mark.parametrize(
    "url",
    [
        "http://discord.com/api/webhooks/42/visibly-fake-token",
        "https://discord.com.evil.example/api/webhooks/42/visibly-fake-token",
        "https://evil.example/api/webhooks/42/visibly-fake-token",
        "https://user@discord.com/api/webhooks/42/visibly-fake-token",
        "https://discord.com:8443/api/webhooks/42/visibly-fake-token",
        "https://discord.com/api/webhooks/42",
        "https://discord.com/api/webhooks/42/visibly-fake-token/slack",
        "https://127.0.0.1/api/webhooks/42/visibly-fake-token",
        "https://[bad/api/webhooks/42/visibly-fake-token",
        "visibly-fake-token",
    ],
)
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    """The sentence names the variable; the token stays out of it."""
    with pytest.raises(ConfigurationError, match="DISCORD_WEBHOOK_URL") as caught:
        Webhook.parse(SecretStr(url))
    assert FAKE_TOKEN not in str(caught.value)


def test_a_thread_id_has_digits_only() -> None:
    """A name in its place is a configuration error."""
    with pytest.raises(ConfigurationError, match="DISCORD_THREAD_ID"):
        Webhook.parse(SecretStr(WEBHOOK_URL), "general")


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "Clyde's friend", "DISCORD", "everyone", "Here"])
def test_a_name_that_discord_refuses_is_refused_at_the_start(name: str) -> None:
    """Or every message would be rejected."""
    with pytest.raises(ConfigurationError, match="DISCORD_BOT_NAME"):
        replace(CHANNEL, username=name)


def test_name_and_avatar_are_sent() -> None:
    """As the operator set them; a URL that is none is refused."""
    named = replace(CHANNEL, username="Prompt Herald", avatar_url="https://example.com/a.png")
    body = named.pack([make_version()]).body
    assert (body["username"], body["avatar_url"]) == ("Prompt Herald", "https://example.com/a.png")
    with pytest.raises(ConfigurationError, match="DISCORD_BOT_AVATAR_URL"):
        replace(CHANNEL, avatar_url="a.png")


def _size(version: PromptVersion) -> int:
    rendered = embed(version, "production")
    texts = [rendered["title"], rendered["description"]]
    texts += [field[key] for field in rendered["fields"] for key in ("name", "value")]
    return sum(len(text.encode("utf-16-le", "surrogatepass")) // 2 for text in texts)
