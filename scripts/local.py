"""The whole system on this machine: both functions, the embedded store, the relay, and a stand-in for Discord.

`make demo` and `make serve` run this. The environment configures it as it configures the functions; where it sets no
DISCORD_WEBHOOK_URL, announcements go to the stand-in, and are shown here. Everything listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import requests
from rich.console import Console
from rich.text import Text

from _path import ROOT
from _samples import AGENT, announce_samples
from herald import wiring
from herald.errors import ConfigurationError
from herald.settings import Settings
from infra.local.card import render
from infra.local.emulator import EmulatorError, running
from infra.local.stand_in import DiscordStandIn

HOST = "127.0.0.1"
API_PORT, ANNOUNCE_PORT = 8080, 8081
# How many events announce holds at once: more than the relay brings.
ANNOUNCE_THREADS = 48
# The relay brings an event again soon. Held for so long at most, each is done before the relay's grace is over.
MAX_WAIT_SECONDS = 10.0
START_SECONDS = 30.0
STOP_SECONDS = 40.0  # the relay's grace, or gunicorn's (30 s), and then some
QUIET_STOP_SECONDS = 1.0
WATCH_SECONDS = 0.5
NO_STAND_IN_FOR = ("DISCORD_WEBHOOK_URL", "ENVIRONMENT", "UPLOAD_TOKENS")
FIRESTORE = "firestore"

console = Console(highlight=False)


class Ports(NamedTuple):
    """Ports of the two functions."""

    api: int
    announce: int


@dataclass(frozen=True)
class Urls:
    """Where the two functions listen."""

    api: str
    announce: str


class StartError(Exception):
    """The system could not be started; the text says what to do."""


class Stop(Exception):
    """SIGINT or SIGTERM."""


def main() -> int:
    """Start everything, announce the samples if asked to, serve until stopped."""
    arguments = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    try:
        with ExitStack() as stack:
            return _run(arguments, stack)
    except (StartError, EmulatorError, ConfigurationError) as error:
        print(f"prompt-herald: {error}", file=sys.stderr)
        return 2
    except Stop:
        return 0


def _run(arguments: argparse.Namespace, stack: ExitStack) -> int:
    ports = _ports(arguments)
    environment = _environment(arguments, ports, stack)
    urls, children = _start_functions(ports, environment, stack)
    children.append(_start_relay(urls, environment, stack, has_events=arguments.store == FIRESTORE))
    print(f"ready api={urls.api} announce={urls.announce}", flush=True)
    token = next(iter(json.loads(environment["UPLOAD_TOKENS"]).values()), "")
    arrived = announce_samples(urls.api, token, quiet=arguments.quiet) if arguments.samples or arguments.once else True
    if arguments.once:
        return 0 if arrived else 1
    if not arguments.quiet:
        _explain(urls, token)
    return _watch(children)


def _ports(arguments: argparse.Namespace) -> Ports:
    """Return the ports to listen on: those named, or the defaults (any free ones for --once)."""
    api, announce = (0, 0) if arguments.once else (API_PORT, ANNOUNCE_PORT)
    return Ports(
        _free_port(api if arguments.api_port is None else arguments.api_port, "--api-port"),
        _free_port(announce if arguments.announce_port is None else arguments.announce_port, "--announce-port"),
    )


def _environment(arguments: argparse.Namespace, ports: Ports, stack: ExitStack) -> dict[str, str]:
    """Return the functions' environment: this process's own, and defaults for what it leaves open."""
    environment = dict(os.environ)
    missing = [name for name in NO_STAND_IN_FOR if not environment.get(name)]
    if arguments.no_stand_in and missing:
        message = f"{', '.join(missing)} is missing: set it, as docs/RUN_ON_ONE_MACHINE.md shows, and start again."
        raise StartError(message)
    if not environment.get("DISCORD_WEBHOOK_URL"):
        stand_in = stack.enter_context(DiscordStandIn(on_message=None if arguments.quiet else _show))
        environment["DISCORD_WEBHOOK_URL"] = stand_in.webhook_url
        environment.setdefault("ENVIRONMENT", "production")
    environment.setdefault("UPLOAD_TOKENS", json.dumps({os.environ.get("USER", "local"): secrets.token_urlsafe(24)}))
    if arguments.store == FIRESTORE:
        emulator = stack.enter_context(running(ports.announce))
        emulator.register_trigger()
        environment |= {"STORE_URL": emulator.store_url, "FIRESTORE_EMULATOR_HOST": emulator.host}
    else:
        environment["STORE_URL"] = _store_url(arguments, environment, stack)
        environment["MAX_WAIT"] = environment.get("MAX_WAIT") or f"{MAX_WAIT_SECONDS:g}"
    environment["PYTHONUNBUFFERED"] = "1"
    _check(environment)
    return environment


def _store_url(arguments: argparse.Namespace, environment: dict[str, str], stack: ExitStack) -> str:
    """Return the store to use: a flag, the environment's, a throw-away one for the demo, or the checkout's own."""
    named = arguments.store or environment.get("STORE_URL")
    if named:
        return str(named)
    if arguments.samples or arguments.once:
        return f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='prompt-herald-'))}/demo.db"
    (ROOT / ".local").mkdir(exist_ok=True)
    return f"sqlite:///{ROOT}/.local/prompt-herald.db"


def _check(environment: dict[str, str]) -> None:
    """Refuse a wrong setting here, in one sentence, rather than from two children at once."""
    os.environ.update(environment)
    wiring.check()


def _watch(children: list[subprocess.Popen[bytes]]) -> int:
    """Wait until a signal raises Stop, or a child ends, which ends the others: whoever supervises starts all anew."""
    while all(child.poll() is None for child in children):
        time.sleep(WATCH_SECONDS)
    print("prompt-herald: one of the programs has ended; the lines above say why.", file=sys.stderr)
    return 1


def _start_functions(
    ports: Ports, environment: dict[str, str], stack: ExitStack
) -> tuple[Urls, list[subprocess.Popen[bytes]]]:
    held = {"THREADS": environment.get("THREADS", str(ANNOUNCE_THREADS))}
    children = [
        _start_function(["save_prompt_version"], ports.api, environment, stack),
        _start_function(
            ["announce_version", "--signature-type", "cloudevent"], ports.announce, environment | held, stack
        ),
    ]
    urls = Urls(f"http://{HOST}:{ports.api}", f"http://{HOST}:{ports.announce}")
    for child, url in zip(children, (urls.api, urls.announce), strict=True):
        _wait_until_up(child, f"{url}/health")
    return urls, children


def _start_function(
    target: list[str], port: int, environment: dict[str, str], stack: ExitStack
) -> subprocess.Popen[bytes]:
    """Start one function under functions-framework."""
    source = ["--source", str(ROOT / "functions/main.py"), "--target", *target]
    # gunicorn makes its control socket there: each function its own.
    runtime = {"XDG_RUNTIME_DIR": stack.enter_context(tempfile.TemporaryDirectory(prefix="prompt-herald-"))}
    command = ["-m", "functions_framework", *source, "--host", HOST, "--port", str(port)]
    return _start(command, environment | runtime, stack)


def _start(program: list[str], environment: dict[str, str], stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a Python program in a process group of its own, and see to its end."""
    child = subprocess.Popen([sys.executable, *program], env=environment, start_new_session=True)
    stack.callback(_stop, child)
    return child


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a program and its workers when they have finished what is on its way; if they cannot, all the same."""
    _ignore_signals()  # one is enough, and none is needed any more: the way out must not be cut short
    child.terminate()
    try:
        child.wait(QUIET_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"prompt-herald: finishing what is on its way, for {STOP_SECONDS:g} s at most.", file=sys.stderr)
        _stop_late(child)


def _stop_late(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait_until_up(child: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            message = f"a function ended at its start (exit code {child.returncode}); the lines above say why."
            raise StartError(message)
        try:
            requests.get(url, timeout=1)
        except requests.RequestException:
            time.sleep(0.02)
        else:
            return
    message = f"{url} did not answer within {START_SECONDS:g} s."
    raise StartError(message)


def _start_relay(
    urls: Urls, environment: dict[str, str], stack: ExitStack, *, has_events: bool
) -> subprocess.Popen[bytes]:
    """Start the relay; where the store has events of its own (the emulator), for those that failed."""
    flags = ["--announce-url", urls.announce]
    flags += ["--older-than", str(Settings.load().reconcile_after)] if has_events else []
    return _start([str(ROOT / "scripts/relay.py"), *flags], environment, stack)


def _free_port(port: int, flag: str) -> int:
    """Return `port`, or any free one for 0. Raises StartError where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            message = f"port {port} is taken; name another with {flag} (0: any free one)."
            raise StartError(message) from None
        return int(probe.getsockname()[1])


def _show(message: Any) -> None:
    console.print(render(message["body"]))


def _explain(urls: Urls, token: str) -> None:
    """Say what a person can do now."""
    console.print(Text("Upload API    ", style="bold"), f"{urls.api}  (try {urls.api}/docs)")
    console.print(Text("Upload token  ", style="bold"), token)
    console.print(Text("Try it:", style="bold"))
    curl = (
        f"curl -sS {urls.api}/api/v1/unified-save \\\n"
        f"  -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\\n"
        f"""  -d '{{"agent_type": "{AGENT}", "prompt_content": "Be kind.", "reason": "- shorter - kinder"}}'"""
    )
    print(curl, flush=True)
    console.print(Text("Ctrl-C stops everything.", style="dim"))


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise Stop


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--api-port", type=int, help=f"port of the upload API (default {API_PORT}; 0: any free one)")
    parser.add_argument(
        "--announce-port", type=int, help=f"port of announce (default {ANNOUNCE_PORT}; 0: any free one)"
    )
    parser.add_argument("--store", help="sqlite:///PATH, or firestore: its emulator (default: STORE_URL, or .local/…)")
    parser.add_argument("--samples", action="store_true", help="upload two versions of the sample prompt first")
    parser.add_argument("--once", action="store_true", help="upload the samples, and exit: 0 when both were announced")
    parser.add_argument(
        "--no-stand-in", action="store_true", help=f"refuse to start without {', '.join(NO_STAND_IN_FOR)}"
    )
    parser.add_argument("--quiet", action="store_true", help="print the ready line, and nothing else")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
