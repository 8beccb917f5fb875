"""Process start → first event answered, and peak memory, beside a functions-framework function that does nothing."""

from __future__ import annotations

import compileall
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import requests
from google.events.cloud.firestore import DocumentEventData
from google.events.cloud.firestore_v1.types import Document

from herald.events.firestore import TYPE as FIRESTORE_TYPE
from herald.events.local import TYPE
from herald.model import PromptVersion
from infra.local.emulator import EmulatorError, running
from infra.local.stand_in import DiscordStandIn, Options
from tests.benchmarks.latency import BARE
from tests.benchmarks.rows import Row
from tests.end_to_end.conftest import clean_environment
from tests.fakes import make_version
from tests.servers import MAIN, FunctionServer, event_headers

STARTS = 15
# Times and memory of the floor, at most.
TARGETS: dict[str, tuple[float, float | None]] = {"announce": (1.8, 1.5), "announce on Firestore": (3.0, None)}
_ANNOUNCE = ("announce_version", MAIN)


def measure() -> Iterator[Row]:
    """Start each in turns, compiled, as a deployment leaves them.

    Like for like: the floor sends nothing, so announce has a target where its first event is suppressed; a first
    event that is sent imports requests, and is shown beside it.
    """
    for source in (MAIN.parent, BARE.parent):
        compileall.compile_dir(source, quiet=1)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stand_in = stack.enter_context(DiscordStandIn(Options(bucket_limit=0)))
        sending = {"ENVIRONMENT": "production", "DISCORD_WEBHOOK_URL": stand_in.webhook_url}
        sqlite = {"STORE_URL": f"sqlite:///{folder}/herald.db"}
        cases = {
            "hello world": (clean_environment(), "hello", BARE, TYPE),
            "announce": (clean_environment(**sqlite), *_ANNOUNCE, TYPE),
            "announce and send": (clean_environment(**sqlite, **sending), *_ANNOUNCE, TYPE),
        }
        with suppress(EmulatorError):  # where there is one
            emulator = stack.enter_context(running())
            on_firestore = {"STORE_URL": emulator.store_url, "FIRESTORE_EMULATOR_HOST": emulator.host}
            cases["announce on Firestore"] = (clean_environment(**on_firestore), *_ANNOUNCE, FIRESTORE_TYPE)
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for number in range(1, STARTS + 1):
            for name, (environment, target, source, kind) in cases.items():
                runs[name].append(_start(FunctionServer(environment, target, source), make_version(number), kind))
    yield from _rows(runs)


def _rows(runs: dict[str, list[tuple[float, float]]]) -> Iterator[Row]:
    for index, (what, unit) in enumerate((("time", "s"), ("peak memory", "MiB"))):
        base = median(each[index] for each in runs["hello world"])
        for name, values in runs.items():
            value = median(each[index] for each in values)
            yield Row("cold start", name, what, round(value, 3), unit)
            if name != "hello world":
                ratio, most = value / base, TARGETS.get(name, (None, None))[index]
                target, met = (f"{most} at most", ratio <= most) if most else ("", None)
                yield Row("cold start", f"{name} : hello", what, round(ratio, 2), "x", target, met)


def _start(server: FunctionServer, version: PromptVersion, kind: str) -> tuple[float, float]:
    """Return seconds until the first event is answered, and the MiB that master and workers have needed."""
    headers = event_headers(version) | {"ce-type": kind, "ce-document": version.key.path}
    data = version.model_dump_json().encode()
    if kind == FIRESTORE_TYPE:
        data, headers["Content-Type"] = _document(version), "application/protobuf"
    started = time.perf_counter()
    server.start()
    while True:
        try:
            requests.post(server.url, data=data, headers=headers, timeout=10).raise_for_status()
            break
        except requests.ConnectionError:
            time.sleep(0.005)
    seconds = time.perf_counter() - started
    memory = _peak_memory(server)
    server.kill()
    return seconds, memory


def _document(version: PromptVersion) -> bytes:
    """Return the event's data as Eventarc sends it."""
    value = Document(fields={"author": {"string_value": version.author}, "version_number": {"integer_value": 1}})
    return bytes(DocumentEventData.serialize(DocumentEventData(value=value)))


def _peak_memory(server: FunctionServer) -> float:
    assert server.process
    listed = subprocess.run(["ps", "-e", "-o", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    members = [int(line.split()[0]) for line in listed.splitlines() if int(line.split()[1]) == server.process.pid]
    lines = [line for pid in members for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1_024
