"""What every Channel keeps to."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from herald.channels.discord import DiscordChannel, Webhook
from herald.ports import Answer, Channel, Ruling
from tests.fakes import FAKE_TOKEN, WEBHOOK_URL, make_version

CHANNELS = {"discord": DiscordChannel(Webhook.parse(SecretStr(WEBHOOK_URL)), "production")}


@pytest.fixture(params=sorted(CHANNELS))
def channel(request: pytest.FixtureRequest) -> Channel:
    """Give a channel."""
    return CHANNELS[request.param]


def test_a_message_takes_versions_from_the_first(channel: Channel) -> None:
    """At least one, at most max_versions; in the message they stand in order of agent and number."""
    given = [make_version(number) for number in range(40, 0, -1)]
    request = channel.pack(given)
    assert 1 <= len(request.carries) <= channel.max_versions
    assert list(request.carries) == sorted(version.key for version in given[: len(request.carries)])


def test_one_version_always_makes_a_message(channel: Channel) -> None:
    """However long its texts are."""
    huge = make_version(reason="🚀*`" * 900, author="@everyone" * 50, prompt_preview="```" * 70, prompt_bytes=10**6)
    assert channel.pack([huge]).carries == (huge.key,)


def test_rendering_is_pure(channel: Channel) -> None:
    """The same versions make the same message."""
    assert channel.pack([make_version(), make_version(2)]) == channel.pack([make_version(), make_version(2)])


def test_the_secret_is_masked(channel: Channel) -> None:
    """In the channel and in its requests, when they are printed."""
    assert FAKE_TOKEN not in f"{channel!r} {channel.pack([make_version()])!r}"


@pytest.mark.parametrize(
    ("status", "rulings"),
    [
        (200, {Ruling.ACCEPTED}),
        (400, {Ruling.REJECTED}),
        (401, {Ruling.GONE}),
        (403, {Ruling.GONE}),
        (404, {Ruling.GONE}),
        (408, {Ruling.RETRY}),
        (429, {Ruling.RETRY}),
        (500, {Ruling.RETRY}),
        (503, {Ruling.RETRY}),
        (302, {Ruling.RETRY}),
    ],
)
@pytest.mark.parametrize("body", [None, [], "text", {"id": None}, {"code": {}, "retry_after": "soon"}])
def test_every_answer_has_a_verdict(channel: Channel, status: int, rulings: set[Ruling], body: object) -> None:
    """Whatever its body; what is not delivered has a reason for the ledger."""
    verdict = channel.judge(Answer(status, {}, body))
    assert verdict.ruling in rulings
    assert verdict.reason is not None or verdict.ruling is Ruling.ACCEPTED
