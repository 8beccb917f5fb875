"""Uploads take as long with a Discord that hangs, or refuses, as with one that answers at once."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from infra.local.stand_in import DiscordStandIn, Options
from tests.benchmarks.rows import Row, percentile
from tests.end_to_end.conftest import TOKEN, System, running_system

UPLOADS, WARM_UP = 300, 10
# All share this machine's cores: an announcement of the healthy system must not run beside the next upload.
PAUSE_SECONDS = 0.05
TOLERANCE = 0.10


def measure() -> Iterator[Row]:
    """Upload to three systems in turns, each with another Discord; yield p50 and p95 of each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        healthy = stack.enter_context(DiscordStandIn(Options(bucket_limit=0))).webhook_url
        hanging = stack.enter_context(DiscordStandIn(Options(hang=10.0))).webhook_url
        refusing = stack.enter_context(_refusing())
        webhooks = {"healthy": healthy, "hanging 10 s": hanging, "refusing connections": refusing}
        systems = {
            name: stack.enter_context(running_system(folder / f"{index}.db", url, log))
            for index, (name, url) in enumerate(webhooks.items())
            for log in [stack.enter_context((folder / f"{index}.log").open("w"))]
        }
        session = stack.enter_context(requests.Session())
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        times: dict[str, list[float]] = {name: [] for name in systems}
        for _ in range(UPLOADS):
            for name, system in systems.items():
                times[name].append(_upload(session, system))
                time.sleep(PAUSE_SECONDS)
    yield from _rows({name: values[WARM_UP:] for name, values in times.items()})


def _rows(times: dict[str, list[float]]) -> Iterator[Row]:
    for percent in (50, 95):
        base = percentile(times["healthy"], percent)
        for name, values in times.items():
            value = percentile(values, percent)
            ratio = value / base
            met = None if name == "healthy" else abs(ratio - 1) <= TOLERANCE
            yield Row("isolation", f"upload, Discord {name}", f"p{percent}", round(value * 1_000, 2), "ms")
            if met is not None:
                yield Row("isolation", f"{name} : healthy", f"p{percent}", round(ratio, 3), "x", "0.90 to 1.10", met)


def _upload(session: requests.Session, system: System) -> float:
    started = time.perf_counter()
    answer = session.post(
        f"{system.api}/api/v1/unified-save", json={"agent_type": "eai", "prompt_content": "x" * 4_000}
    )
    answer.raise_for_status()
    return time.perf_counter() - started


@contextmanager
def _refusing() -> Iterator[str]:
    """Give the URL of a port that nobody listens on, kept so."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}/api/webhooks/1/fake-token"
