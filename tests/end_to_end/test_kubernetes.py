"""Exactly what the manifests run, as processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.local.emulator import Emulator
from infra.local.stand_in import DiscordStandIn, Options
from tests.end_to_end.conftest import TOKEN, clean_environment
from tests.kubernetes import KUBERNETES, OVERLAYS, Image, Manifest, deployed, pods

ROLES = {"api", "announce", "relay"}


def secret(webhook: str) -> dict[str, str]:
    return {"DISCORD_WEBHOOK_URL": webhook, "ENVIRONMENT": "production", "UPLOAD_TOKENS": f'{{"ada": "{TOKEN}"}}'}


def until_healthy(environments: dict[str, dict[str, str]]) -> None:
    deadline = time.monotonic() + 30
    for environment in environments.values():
        while True:
            try:
                assert requests.get(f"http://127.0.0.1:{environment['PORT']}/health", timeout=2).ok
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline, "not healthy"
                time.sleep(0.05)


def upload(api: str, agent: str) -> str | None:
    """Upload; return the version's path, or None where no 201 came."""
    body = {"agent_type": agent, "prompt_content": "You are kind."}
    try:
        answer = requests.post(
            f"{api}/api/v1/unified-save", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        )
    except requests.ConnectionError:
        return None
    return answer.headers["Location"] if answer.status_code == 201 else None


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """Give an overlay's name, and the variables that lead to its store's emulator."""
    if request.param == "single-node":
        return "single-node", {}
    emulator: Emulator = request.getfixturevalue("emulator")
    return "firestore", {"FIRESTORE_EMULATOR_HOST": emulator.host}


def test_from_an_upload_to_the_channel_and_a_stop_that_loses_nothing(
    image: Image, rendered: dict[str, list[Manifest]], overlay: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    """SIGTERM comes with uploads and messages in flight; what was answered 201 is announced once, then or later."""
    name, variables = overlay
    with DiscordStandIn(Options(latency=0.3)) as stand_in:
        environments = deployed(image, rendered[name], tmp_path, secret(stand_in.webhook_url), **variables)
        assert environments.keys() == ROLES
        api = f"http://127.0.0.1:{environments['api']['PORT']}"
        with pods(image, environments, tmp_path / "log") as processes:
            until_healthy(environments)
            first = upload(api, "first")
            assert first
            assert stand_in.wait_for(lambda messages: len(messages) == 1, 20)
            with ThreadPoolExecutor(8) as pool:
                saved = [pool.submit(upload, api, f"storm-{number % 4}") for number in range(60)]
                assert stand_in.wait_for(lambda messages: len(messages) > 1, 20)
                for process in processes.values():
                    process.send_signal(signal.SIGTERM)
                accepted = {path for path in (each.result() for each in saved) if path}
            assert [process.wait(40) for process in processes.values()] == [0, 0, 0]
        with pods(image, environments, tmp_path / "log"):
            until_healthy(environments)
            assert stand_in.wait_for(lambda messages: accepted <= set(_announced(messages)), 40)
        announced = _announced(stand_in.messages)
        assert len(announced) == len(set(announced))
    assert "ERROR" not in (tmp_path / "log").read_text()


def _announced(messages: list[dict[str, Any]]) -> list[str]:
    """Return the path of each version announced, as the API tells it."""
    embeds = [[field["value"] for field in each["fields"]] for m in messages for each in m["body"]["embeds"]]
    return [f"/api/v1/agents/{agent}/versions/{number}" for agent, _, number, *_ in embeds]


def entry(role: str, **variables: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, str(KUBERNETES / "entrypoint.py"), role],
            env=clean_environment(**({"STORE_URL": "firestore://acme-prompts", "TMPDIR": folder} | variables)),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )


@pytest.mark.parametrize(
    ("role", "variables", "words"),
    [
        ("api", {}, "UPLOAD_TOKENS is missing: add it to the secret eai-agent-secrets"),
        ("announce", {"ENVIRONMENT": "production"}, "DISCORD_WEBHOOK_URL is missing"),
        ("announce", {}, "DISCORD_WEBHOOK_URL, ENVIRONMENT is missing"),
        ("relay", {"STORE_URL": ""}, "STORE_URL is missing"),
        ("api", {"UPLOAD_TOKENS": "{}", "STORE_URL": "sqlite:////proc/herald.db"}, "cannot be written to"),
        ("api", {"UPLOAD_TOKENS": "not json"}, "UPLOAD_TOKENS"),
        ("queen", {}, "api, announce or relay"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(role: str, variables: dict[str, str], words: str) -> None:
    """So that `kubectl logs` is enough."""
    result = entry(role, **variables)
    assert result.returncode != 0
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_second_pod_on_one_file_is_refused(tmp_path: Path) -> None:
    """With the other pod's name; when that one is gone, the file is free."""
    url = {"STORE_URL": f"sqlite:///{tmp_path}/herald.db", "UPLOAD_TOKENS": "{}"}
    (tmp_path / "herald.db.lock").write_text("prompt-herald-other-pod")
    with (tmp_path / "herald.db.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        refused = entry("api", **url)
    assert refused.returncode == 2
    assert "in use by pod 'prompt-herald-other-pod'" in refused.stderr
    freed = entry("api", **url, PORT="not-a-port")  # past the lock, functions-framework refuses the port
    assert "in use" not in freed.stderr
    assert "not-a-port" in freed.stderr


def test_the_containers_of_one_pod_share_the_file(
    image: Image, rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    """The lock lasts as long as any of them."""
    keys = secret("http://127.0.0.1:1/api/webhooks/1/fake-token")
    environments = deployed(image, rendered["single-node"], tmp_path, keys)
    with pods(image, environments, tmp_path / "log") as processes:
        until_healthy(environments)
        os.killpg(processes["api"].pid, signal.SIGKILL)
        with (tmp_path / "herald.db.lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        healthy = entry("health", PORT=environments["announce"]["PORT"])
        assert healthy.returncode == 0
    assert entry("health", PORT=environments["announce"]["PORT"]).returncode == 1
