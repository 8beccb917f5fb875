"""Process start → first event answered, and peak memory, beside a functions-framework function that does nothing."""

from __future__ import annotations

import compileall
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import requests

from herald.stores.sqlite import SQLiteStore
from infra.local.stand_in import DiscordStandIn, Options
from tests.benchmarks.latency import BARE
from tests.benchmarks.rows import Row
from tests.end_to_end.conftest import clean_environment
from tests.fakes import make_upload
from tests.servers import MAIN, FunctionServer, event_headers

STARTS = 15
TARGET_TIME, TARGET_MEMORY = 1.8, 1.5


def measure() -> Iterator[Row]:
    """Start both in turns, compiled, as a deployment leaves them; ours sends its first event to Discord."""
    for source in (MAIN.parent, BARE.parent):
        compileall.compile_dir(source, quiet=1)
    with tempfile.TemporaryDirectory() as folder, DiscordStandIn(Options(bucket_limit=0)) as stand_in:
        store = SQLiteStore(f"{folder}/herald.db")
        environment = clean_environment(
            ENVIRONMENT="production",
            STORE_URL=f"sqlite:///{folder}/herald.db",
            DISCORD_WEBHOOK_URL=stand_in.webhook_url,
        )
        floor, ours = [], []
        for _ in range(STARTS):
            floor.append(_start(FunctionServer(clean_environment(), target="hello", source=BARE), store))
            ours.append(_start(FunctionServer(environment), store))
        store.close()
    for index, (what, unit, target) in enumerate((("time", "s", TARGET_TIME), ("peak memory", "MiB", TARGET_MEMORY))):
        base, value = (median(each[index] for each in runs) for runs in (floor, ours))
        ratio = value / base
        yield Row("cold start", "hello world", what, round(base, 3), unit)
        yield Row("cold start", "announce", what, round(value, 3), unit)
        yield Row("cold start", "announce : hello", what, round(ratio, 2), "x", f"{target} at most", ratio <= target)


def _start(server: FunctionServer, store: SQLiteStore) -> tuple[float, float]:
    """Return seconds until the first event is answered, and the MiB that master and workers have needed."""
    version = store.save(make_upload(), None)
    started = time.perf_counter()
    server.start()
    data, headers = version.model_dump_json(), event_headers(version)
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


def _peak_memory(server: FunctionServer) -> float:
    assert server.process
    listed = subprocess.run(["ps", "-e", "-o", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    members = [int(line.split()[0]) for line in listed.splitlines() if int(line.split()[1]) == server.process.pid]
    lines = [line for pid in members for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1_024
