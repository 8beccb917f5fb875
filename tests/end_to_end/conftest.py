"""The whole system, as scripts/local.py runs it, against a stand-in that the test holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import requests

from herald.settings import Settings
from infra.local.stand_in import DiscordStandIn, Options
from tests.conftest import ROOT
from tests.kubernetes import OVERLAYS, Image, Manifest, render

OLDEST_KUBECTL_MINOR = 27  # as docs/KUBERNETES_DISCORD_SETUP.md says
TOKEN = "fake-ada-token"
FINAL = {"sent", "failed", "suppressed"}


@dataclass(frozen=True)
class System:
    """A running system."""

    api: str
    announce: str
    process: subprocess.Popen[str]

    def upload(self, agent: str = "eai", **body: Any) -> str:
        """Upload a version; return the URL of its record."""
        answer = requests.post(
            f"{self.api}/api/v1/unified-save",
            json={"agent_type": agent, "prompt_content": "You are kind."} | body,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        assert answer.status_code == 201, answer.text
        return self.api + answer.headers["Location"]

    def get(self, url: str) -> Any:
        """GET a path of the API, or a whole URL, as JSON."""
        full = url if url.startswith("http") else self.api + url
        answer = requests.get(full, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def delivered(self, url: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait for a version's delivery to be final; return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.get(url)["deliveries"]
            if found and found[0]["status"] in FINAL:
                return dict(found[0])
            time.sleep(0.02)
        pytest.fail(f"no final delivery: {found}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without any variable of ours, and with the given ones."""
    ours = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in ours} | variables


def until_asked(stand_in: DiscordStandIn) -> None:
    """Wait until a request has come to Discord, answered or not."""
    deadline = time.monotonic() + 20
    while not stand_in.counts["requests"]:
        assert time.monotonic() < deadline, "nothing was sent"
        time.sleep(0.02)


@contextmanager
def running_system(
    store: Path | str, webhook: str, stderr: IO[str] | None = None, **variables: str
) -> Iterator[System]:
    """Start scripts/local.py on a store and a webhook, and stop it."""
    url = store if isinstance(store, str) else f"sqlite:///{store}"
    command = [sys.executable, str(ROOT / "scripts/local.py"), "--quiet", "--api-port", "0", "--announce-port", "0"]
    ours = {"UPLOAD_TOKENS": f'{{"ada": "{TOKEN}"}}', "DISCORD_WEBHOOK_URL": webhook, "ENVIRONMENT": "production"}
    with started([*command, "--store", url], clean_environment(**(ours | variables)), stderr) as system:
        yield system


@contextmanager
def started(command: list[str], environment: dict[str, str], stderr: IO[str] | None = None) -> Iterator[System]:
    """Run a command that starts the system, and stop it."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout
        ready = re.fullmatch(r"ready api=(\S+) announce=(\S+)\n", process.stdout.readline())
        assert ready, f"it did not start: exit code {process.wait(20)}"
        yield System(ready[1], ready[2], process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        if process.stdout:
            process.stdout.close()


@pytest.fixture(scope="session")
def shared_stand_in() -> Iterator[DiscordStandIn]:
    """Give a stand-in that many tests send to."""
    with DiscordStandIn(Options(bucket_limit=0)) as server:
        yield server


@pytest.fixture(scope="session")
def system(shared_stand_in: DiscordStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Give a system that many tests share; each uses agents of its own."""
    with running_system(tmp_path_factory.mktemp("system") / "herald.db", shared_stand_in.webhook_url) as running:
        yield running


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Give kubectl; where there is none, skip on a person's machine, and fail in CI."""
    found = shutil.which("kubectl")
    if found is None or _minor(found) < OLDEST_KUBECTL_MINOR:
        message = (
            f"there is no kubectl 1.{OLDEST_KUBECTL_MINOR} or newer (Debian 13: apt-get install kubernetes-client)"
        )
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)
    return found


def _minor(kubectl: str) -> int:
    command = [kubectl, "version", "--client", "--output=json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return int(told["clientVersion"]["minor"].rstrip("+"))


@pytest.fixture(scope="session")
def rendered(kubectl: str) -> dict[str, list[Manifest]]:
    """Give every overlay's manifests."""
    return {overlay: render(kubectl, overlay) for overlay in OVERLAYS}


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Give what the Dockerfile puts together, laid out in a folder."""
    return Image.build(tmp_path_factory.mktemp("image"))
