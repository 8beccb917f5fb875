"""Every variable that the product reads, and the only place that reads them."""

from __future__ import annotations

import os
import re
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from herald.errors import ConfigurationError

PRODUCTION_NAMES = frozenset({"production", "prod"})
_LEASE_MARGIN_SECONDS = 5.0


class Settings(BaseSettings):
    """The environment, validated once; an empty variable counts as unset. Durations are in seconds."""

    model_config = SettingsConfigDict(defer_build=True, frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    environment: str = "development"
    announce_outside_production: bool = False
    store_url: str = "sqlite:///prompt-herald.db"

    upload_tokens: dict[str, SecretStr] = Field(default_factory=dict)
    version_prefix: str | None = Field(default=None, max_length=64)
    time_zone: str = "UTC"

    discord_webhook_url: SecretStr | None = None
    discord_thread_id: str | None = None
    discord_thread_fallback: bool = False
    discord_bot_name: str | None = None
    discord_bot_avatar_url: str | None = None
    discord_connect_timeout: Annotated[float, Field(gt=0, le=60)] = 3.0
    discord_read_timeout: Annotated[float, Field(gt=0, le=120)] = 10.0

    max_wait: Annotated[float, Field(gt=0, le=500)] = 240.0
    reconcile_after: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    reconcile_budget: Annotated[float, Field(gt=0, le=1_500)] = 200.0
    lease: Annotated[float, Field(gt=0, le=86_400)] = 300.0

    log_format: Annotated[str, Field(pattern="^(auto|json|text)$")] = "auto"
    k_service: str | None = None

    @classmethod
    def load(cls) -> Settings:
        """Read the environment. Raises ConfigurationError with one sentence a wrong variable, never its value."""
        # pydantic looks for plugins in every installed distribution, which takes a twentieth of a cold start.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        try:
            return cls()
        except ValidationError as error:
            raise ConfigurationError(" ".join(_sentences(error))) from None
        except ValueError as error:  # pydantic-settings: a variable that should hold JSON does not
            raise ConfigurationError(_unreadable(error)) from None

    @property
    def is_production(self) -> bool:
        """Tell whether versions are announced here."""
        return self.environment.strip().lower() in PRODUCTION_NAMES or self.announce_outside_production

    @property
    def logs_are_json(self) -> bool:
        """Tell whether logs are for Cloud Logging (Cloud Run sets K_SERVICE) or for a terminal."""
        return self.log_format == "json" or (self.log_format == "auto" and self.k_service is not None)

    @field_validator("upload_tokens")
    @classmethod
    def _tokens_are_usable(cls, tokens: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, token in tokens.items():
            if not name.strip() or len(name) > 100:  # noqa: PLR2004  the limit of `author`, its default
                message = "a token's name must have 1 to 100 characters"
                raise ValueError(message)
            if not token.get_secret_value().strip():
                message = f"the token of {name!r} is empty"
                raise ValueError(message)
        return tokens

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        from zoneinfo import ZoneInfo  # noqa: PLC0415  it loads much, and most leave the default

        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            message = "it must be an IANA name, such as Europe/Berlin"
            raise ValueError(message) from None
        return name

    @model_validator(mode="after")
    def _lease_outlives_the_wait(self) -> Self:
        held = max(self.max_wait, self.reconcile_budget)
        longest = held + self.discord_connect_timeout + self.discord_read_timeout
        if self.lease < longest + _LEASE_MARGIN_SECONDS:
            message = (
                "LEASE must exceed the larger of MAX_WAIT and RECONCILE_BUDGET, "
                "plus DISCORD_CONNECT_TIMEOUT and DISCORD_READ_TIMEOUT, by "
                f"{_LEASE_MARGIN_SECONDS:g} s (at least {longest + _LEASE_MARGIN_SECONDS:g} here), "
                "or a version could be sent twice"
            )
            raise ValueError(message)
        return self


def _sentences(error: ValidationError) -> list[str]:
    """Say which variable is wrong and how; input values stay out, they may be secrets."""
    sentences = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        name = str(item["loc"][0]).upper() if item["loc"] else ""
        text = item["msg"].removeprefix("Value error, ")
        sentences.append(f"{name}: {text}." if name else f"{text}.")
    return sentences


def _unreadable(error: ValueError) -> str:
    field = re.search(r'field "(\w+)"', str(error))
    name = field[1].upper() if field else "A variable"
    return f'{name}: it must be a JSON object, such as {{"alice": "a-long-random-token"}}.'
