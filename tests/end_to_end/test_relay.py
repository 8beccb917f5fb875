"""The relay as a program."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from herald.model import PromptVersion
from herald.stores.firestore import FirestoreStore
from herald.stores.sqlite import SQLiteStore
from infra.local.emulator import PROJECT, Emulator
from infra.local.stand_in import DiscordStandIn, Options
from tests.conftest import ROOT
from tests.end_to_end.conftest import clean_environment, until_asked
from tests.fakes import make_upload
from tests.servers import FunctionServer, free_port


@contextmanager
def relaying(environment: dict[str, str], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the relay, and stop it."""
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts/relay.py"), *flags], env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)


@contextmanager
def announcing(environment: dict[str, str]) -> Iterator[FunctionServer]:
    server = FunctionServer(environment)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def until_announced(store: Any, *versions: PromptVersion, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not all(found.announced for version in versions if (found := store.version(version.key))):
        assert time.monotonic() < deadline, "not announced"
        time.sleep(0.05)


def variables(store_url: str, stand_in: DiscordStandIn) -> dict[str, str]:
    ours = {"ENVIRONMENT": "production", "DISCORD_WEBHOOK_URL": stand_in.webhook_url, "STORE_URL": store_url}
    return clean_environment(**ours)


def test_what_no_event_has_announced_is_announced(tmp_path: Path) -> None:
    """Beside a store with events of its own; the relay's health can be asked."""
    store, port = SQLiteStore(str(tmp_path / "h.db")), free_port()
    version = store.save(make_upload(), None)
    with DiscordStandIn() as stand_in:
        environment = variables(f"sqlite:///{tmp_path}/h.db", stand_in) | {"HOST": "127.0.0.1"}
        with announcing(environment) as server:
            flags = ("--announce-url", server.url, "--older-than", "60", "--health-port", str(port))
            with relaying(environment, *flags) as process:
                until_announced(store, version)
                assert requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
        assert len(stand_in.messages) == 1
    store.close()


def test_a_stop_finishes_what_is_on_its_way(tmp_path: Path) -> None:
    """Within the grace period: the slow announcement is on record before the relay ends."""
    store = SQLiteStore(str(tmp_path / "h.db"))
    version = store.save(make_upload(), None)
    with DiscordStandIn(Options(latency=1.5)) as stand_in:
        environment = variables(f"sqlite:///{tmp_path}/h.db", stand_in)
        with announcing(environment) as server, relaying(environment, "--announce-url", server.url) as process:
            until_asked(stand_in)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            until_announced(store, version, seconds=0)
    store.close()


def test_firestore_without_eventarc_is_polled(emulator: Emulator) -> None:
    """Each unannounced version is announced, once."""
    emulator.clear()
    store = FirestoreStore(PROJECT, None)
    versions = [store.save(make_upload(), None) for _ in range(12)]
    with DiscordStandIn() as stand_in:
        environment = variables(emulator.store_url, stand_in) | {"FIRESTORE_EMULATOR_HOST": emulator.host}
        with announcing(environment) as server, relaying(environment, "--announce-url", server.url):
            until_announced(store, *versions)
            time.sleep(1.5)  # one more look
    embeds = [embed for message in stand_in.messages for embed in message["body"]["embeds"]]
    assert sorted(int(embed["fields"][2]["value"]) for embed in embeds) == list(range(1, 13))
    store.close()


@pytest.mark.parametrize(
    ("name", "value"), [("STORE_URL", "mysql://x"), ("DISCORD_WEBHOOK_URL", "https://example.com")]
)
def test_a_wrong_setting_ends_it_with_one_sentence(name: str, value: str) -> None:
    """As it ends the functions."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts/relay.py")],
        env=clean_environment() | {name: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert result.returncode == 2
    assert name in result.stderr
    assert len(result.stderr.splitlines()) == 1
