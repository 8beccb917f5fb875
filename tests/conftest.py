"""Fixtures that more than one level of tests needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import functions_framework
import pytest
from flask.testing import FlaskClient

from herald import wiring
from herald.settings import Settings
from infra.local.emulator import Emulator, EmulatorError, running
from infra.local.stand_in import DiscordStandIn
from tests.fakes import FakeClock

ROOT = Path(__file__).resolve().parent.parent
MAIN = ROOT / "functions" / "main.py"

FunctionClient = Callable[[str], FlaskClient]


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that passes only by waiting."""
    return FakeClock()


@pytest.fixture
def stand_in() -> Iterator[DiscordStandIn]:
    """Give a running stand-in for Discord."""
    with DiscordStandIn() as server:
        yield server


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """Give a running Firestore emulator; where there is none, skip on a person's machine, and fail in CI."""
    try:
        with running() as emulator, pytest.MonkeyPatch.context() as patch:
            patch.setenv("FIRESTORE_EMULATOR_HOST", emulator.host)
            yield emulator
    except EmulatorError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Give an environment with a store and two tokens, and nothing else of ours; parts built from it are forgotten."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("STORE_URL", f"sqlite:///{tmp_path}/herald.db")
    monkeypatch.setenv("UPLOAD_TOKENS", '{"ada": "fake-ada-token", "bob": "fake-bob-token"}')
    forget_parts()
    yield monkeypatch
    for store in wiring.store._built:
        store.close()
    forget_parts()


@pytest.fixture
def function(environment: pytest.MonkeyPatch) -> FunctionClient:  # noqa: ARG001  it is set up first
    """Give a client of a function by name, inside functions-framework, in this process."""

    def client(name: str) -> FlaskClient:
        kind = "cloudevent" if name == "announce_version" else "http"
        return functions_framework.create_app(name, str(MAIN), kind).test_client()  # type: ignore[no-any-return, no-untyped-call]

    return client


def forget_parts() -> None:
    """Make wiring build everything anew, as a new process would."""
    for part in vars(wiring).values():
        if isinstance(part, wiring._Once):
            part._built.clear()
