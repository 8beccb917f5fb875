"""Functions under functions-framework, as processes that a test can start, kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests

from herald.events.local import TYPE
from herald.model import PromptVersion

MAIN = Path(__file__).resolve().parent.parent / "functions" / "main.py"
START_SECONDS = 30.0


def event_headers(version: PromptVersion) -> dict[str, str]:
    """Return the headers of a version's created-event, as the relay sends it."""
    return {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": version.key.path,
        "ce-source": "/test",
        "ce-type": TYPE,
        "ce-subject": version.key.path,
    }


@dataclass
class FunctionServer:
    """One function with its workers, on a port of its own that it keeps."""

    environment: dict[str, str]
    target: str = "announce_version"
    source: Path = MAIN
    signature: str = "cloudevent"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    killed_at: list[float] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it may take a moment until it answers."""
        self.port = self.port or free_port()
        function = ["--source", str(self.source), "--target", self.target, "--signature-type", self.signature]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "functions_framework", *function, "--host", "127.0.0.1", "--port", str(self.port)],
            env=self.environment,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_up(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(self.url, timeout=1)
            except requests.RequestException:
                assert time.monotonic() < deadline, "it did not start"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """End it as a crash of the machine would: nothing is finished, nothing is told."""
        assert self.process
        self.killed_at.append(time.time())
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
