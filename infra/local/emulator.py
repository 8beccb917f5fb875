"""Google's own Firestore emulator, on 127.0.0.1; its Eventarc trigger calls the announce function."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

PROJECT = "demo-prompt-herald"
VARIABLE = "FIRESTORE_EMULATOR_JAR"
TRIGGER = "announce"
EVENT = {
    "eventType": "google.cloud.firestore.document.v1.created",
    "database": "(default)",
    "namespace": "(default)",
    "document": {"value": "agents/{agent}/versions/{version}", "matchType": "PATH_PATTERN"},
}
START_SECONDS = 60.0
STOP_SECONDS = 5.0
_COMPONENT = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
_MAIN_CLASS = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
_INSTALL = (
    "Install it with `gcloud components install cloud-firestore-emulator` (Debian: "
    "`apt-get install google-cloud-cli-firestore-emulator default-jre-headless`), or name its jar in "
    f"{VARIABLE}. It needs Java 11 or newer."
)


class EmulatorError(Exception):
    """The emulator cannot be run; the text says what to do."""


@dataclass(frozen=True)
class Emulator:
    """A running emulator; `host` is what FIRESTORE_EMULATOR_HOST is to be set to."""

    host: str

    @property
    def store_url(self) -> str:
        """Return its STORE_URL."""
        return f"firestore://{PROJECT}"

    def register_trigger(self) -> None:
        """Make it call the announce function for each new version."""
        url = f"http://{self.host}/emulator/v1/projects/{PROJECT}/eventarcTrigger?eventarcTriggerId={TRIGGER}"
        requests.post(url, json=EVENT, timeout=10).raise_for_status()

    def clear(self) -> None:
        """Delete every document."""
        url = f"http://{self.host}/emulator/v1/projects/{PROJECT}/databases/(default)/documents"
        requests.delete(url, timeout=30).raise_for_status()


def find() -> Path:
    """Return the emulator's jar. Raises EmulatorError where it or Java is missing."""
    named = os.environ.get(VARIABLE)
    if named:
        jar = Path(named)
    else:
        gcloud = shutil.which("gcloud")
        roots = [Path(gcloud).resolve().parents[1]] if gcloud else []
        roots += [Path("/usr/lib/google-cloud-sdk"), Path.home() / "google-cloud-sdk"]
        jar = next((root / _COMPONENT for root in roots if (root / _COMPONENT).exists()), Path())
    if not jar.is_file():
        message = f"The Firestore emulator is not on this machine. {_INSTALL}"
        raise EmulatorError(message)
    if shutil.which("java") is None:
        message = f"The Firestore emulator needs Java, and there is none on the PATH. {_INSTALL}"
        raise EmulatorError(message)
    return jar


@contextmanager
def running(announce_port: int | None = None) -> Iterator[Emulator]:
    """Run an emulator whose events go to a function on `announce_port`. Raises EmulatorError."""
    jar, port = find(), _free_port()
    flags = ["--host=127.0.0.1", f"--port={port}"]
    flags += [f"--functions_emulator=127.0.0.1:{announce_port}"] if announce_port else []
    process = subprocess.Popen(
        ["java", "-Duser.language=en", "-cp", str(jar), _MAIN_CLASS, "start", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_up(process, port)
        yield Emulator(f"127.0.0.1:{port}")
    finally:
        _stop(process)


def _wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            message = f"The Firestore emulator ended at its start (exit code {process.returncode}). {_INSTALL}"
            raise EmulatorError(message)
        with suppress(requests.RequestException):
            requests.get(f"http://127.0.0.1:{port}/", timeout=1)
            return
        time.sleep(0.1)
    message = f"The Firestore emulator did not answer within {START_SECONDS:g} s."
    raise EmulatorError(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
