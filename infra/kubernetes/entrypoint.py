"""Entry of the container image: `api`, `announce`, `relay`, or `health` (of whichever runs here, for HEALTHCHECK).

Refuses to start, with one sentence that `kubectl logs` shows, where a secret's key is missing, the volume cannot be
written to, or another pod uses the same SQLite file. Then it becomes the program.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import tempfile
import urllib.request
from pathlib import Path

APP = Path(__file__).resolve().parents[2]
FUNCTIONS = str(APP / "functions" / "main.py")
SECRET = "eai-agent-secrets"  # noqa: S105  its name
DEFAULT_PORT = "8080"
REQUIRED = {
    "api": ("UPLOAD_TOKENS",),
    "announce": ("DISCORD_WEBHOOK_URL", "ENVIRONMENT"),
    "relay": (),
}


class RefusedError(Exception):
    """This container cannot do its work; the text says what to do."""


def main() -> int:
    """Check what the role needs, and become its program."""
    role = sys.argv[1] if len(sys.argv) == 2 else ""  # noqa: PLR2004
    if role == "health":
        return _health()
    try:
        command = _command(role)
        _require(role)
        _hold_the_store(os.environ["STORE_URL"])
        os.environ["XDG_RUNTIME_DIR"] = _runtime_folder()
    except RefusedError as error:
        print(f"prompt-herald: {error}", file=sys.stderr)
        return 2
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606  the role's program takes over
    return 0


def _command(role: str) -> list[str]:
    port = os.environ.get("PORT", DEFAULT_PORT)
    functions = ["-m", "functions_framework", "--source", FUNCTIONS, "--target"]
    match role:
        case "api":
            return [*functions, "save_prompt_version"]
        case "announce":
            return [*functions, "announce_version", "--signature-type", "cloudevent"]
        case "relay":
            announce = os.environ.get("ANNOUNCE_URL", "http://127.0.0.1:8081")
            return [str(APP / "scripts/relay.py"), "--announce-url", announce, "--health-port", port]
    message = f"there is no role {role!r}; give one argument: api, announce or relay."
    raise RefusedError(message)


def _require(role: str) -> None:
    if not os.environ.get("STORE_URL"):
        message = "STORE_URL is missing: set it under configMapGenerator of the overlay, and apply that again."
        raise RefusedError(message)
    missing = [name for name in REQUIRED[role] if not os.environ.get(name)]
    if missing:
        keys = ", ".join(missing)
        message = (
            f"{keys} is missing: add it to the secret {SECRET} (docs/KUBERNETES_DISCORD_SETUP.md has the command), "
            "then `kubectl rollout restart` this deployment."
        )
        raise RefusedError(message)


def _runtime_folder() -> str:
    """Make a folder for gunicorn's control socket, of one container only: in a pod, they share /tmp."""
    try:
        return tempfile.mkdtemp(prefix="prompt-herald-")
    except OSError as error:
        message = "there is no folder for temporary files that can be written to: mount an emptyDir at /tmp."
        raise RefusedError(message) from error


def _hold_the_store(url: str) -> None:
    """Lock a SQLite file for this pod, until its last process ends.

    All containers of a pod have one host name and share the lock; it is held by an open file that the program
    which takes over inherits.
    """
    path = url.removeprefix("sqlite:///")
    if path == url:
        return
    lock = Path(f"{path}.lock")
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = (
            f"the volume of STORE_URL cannot be written to ({error.strerror}: {lock.parent}): mount one there that "
            "user 10001 may write to (fsGroup: 10001)."
        )
        raise RefusedError(message) from error
    _share(held, path)
    os.set_inheritable(held, True)  # noqa: FBT003


def _share(held: int, path: str) -> None:
    """Take the lock for this pod, or beside another container of this pod. Raises RefusedError."""
    pod = socket.gethostname()
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it: write down whose it is
    except BlockingIOError:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(held, fcntl.LOCK_SH)  # its owner is just writing its name
    else:
        os.ftruncate(held, 0)
        os.pwrite(held, pod.encode(), 0)
        fcntl.flock(held, fcntl.LOCK_SH)
    owner = os.pread(held, 300, 0).decode()
    if owner != pod:
        message = (
            f"{path} is in use by pod {owner!r}: one SQLite file serves one pod. Scale to one replica with strategy "
            "Recreate, or use overlays/firestore."
        )
        raise RefusedError(message)


def _health() -> int:
    port = os.environ.get("PORT", DEFAULT_PORT)
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=4):
            return 0
    except OSError as error:
        print(f"prompt-herald: not healthy: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
