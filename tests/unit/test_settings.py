"""The environment, read once."""

from __future__ import annotations

import pytest

from herald.errors import ConfigurationError
from herald.settings import Settings


@pytest.mark.parametrize(
    ("variables", "is_production"),
    [
        ({}, False),
        ({"ENVIRONMENT": ""}, False),
        ({"ENVIRONMENT": "production"}, True),
        ({"ENVIRONMENT": " PROD "}, True),
        ({"ENVIRONMENT": "preproduction"}, False),
        ({"ENVIRONMENT": "staging", "ANNOUNCE_OUTSIDE_PRODUCTION": "true"}, True),
        ({"ENVIRONMENT": "staging", "ANNOUNCE_OUTSIDE_PRODUCTION": "false"}, False),
    ],
)
def test_where_versions_are_announced(
    environment: pytest.MonkeyPatch, variables: dict[str, str], *, is_production: bool
) -> None:
    """In production only, or where it is asked for."""
    for name, value in variables.items():
        environment.setenv(name, value)
    assert Settings.load().is_production is is_production


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("UPLOAD_TOKENS", "fake-secret", "JSON object"),
        ("UPLOAD_TOKENS", '["fake-secret"]', "UPLOAD_TOKENS"),
        ("UPLOAD_TOKENS", '{"ada": ""}', "'ada' is empty"),
        ("UPLOAD_TOKENS", '{"": "fake-secret"}', "name"),
        ("TIME_ZONE", "Berlin/fake-secret", "IANA"),
        ("TIME_ZONE", "../../etc/fake-secret", "IANA"),
        ("MAX_WAIT", "fake-secret", "MAX_WAIT"),
        ("MAX_WAIT", "-1", "MAX_WAIT"),
        ("MAX_WAIT", "nan", "MAX_WAIT"),
        ("LEASE", "250", "LEASE must exceed"),
        ("DISCORD_READ_TIMEOUT", "0", "DISCORD_READ_TIMEOUT"),
        ("DISCORD_THREAD_FALLBACK", "fake-secret", "DISCORD_THREAD_FALLBACK"),
        ("LOG_FORMAT", "fake-secret", "LOG_FORMAT"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_repeated(
    environment: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """One sentence; the value may be a secret."""
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=words) as raised:
        Settings.load()
    assert name in str(raised.value)
    assert "fake-secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_secrets_are_masked_when_settings_are_printed(environment: pytest.MonkeyPatch) -> None:
    """A careless log line of the whole object shows no token."""
    environment.setenv("DISCORD_WEBHOOK_URL", "https://discord.com/api/webhooks/1/fake-secret")
    environment.setenv("UPLOAD_TOKENS", '{"ada": "fake-secret"}')
    assert "fake-secret" not in f"{Settings.load()!r}{Settings.load()}"


@pytest.mark.parametrize(
    ("variables", "as_json"),
    [({}, False), ({"K_SERVICE": "announce"}, True), ({"K_SERVICE": "a", "LOG_FORMAT": "text"}, False)],
)
def test_logs_are_json_on_cloud_run(
    environment: pytest.MonkeyPatch, variables: dict[str, str], *, as_json: bool
) -> None:
    """Cloud Run sets K_SERVICE; LOG_FORMAT has the last word."""
    for name, value in variables.items():
        environment.setenv(name, value)
    assert Settings.load().logs_are_json is as_json
