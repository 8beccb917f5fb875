"""Two announce servers on one store, a faulty Discord, events in disorder, and servers that are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests

from herald.model import PromptVersion, Status
from herald.stores.sqlite import SQLiteStore
from infra.local.stand_in import DiscordStandIn, Options
from tests.conftest import ROOT
from tests.end_to_end.conftest import clean_environment
from tests.fakes import make_upload
from tests.servers import FunctionServer, event_headers

VERSIONS = 500
KILL_EVERY_SECONDS = 3.0
# A kill prevents the record of a message that Discord has accepted up to so long before, or accepts up to so long
# after it: the request was on its way.
UNRECORDED_SECONDS = 2.0
ON_ITS_WAY_SECONDS = 1.0
# An event that is refused comes back after this long; Eventarc takes 10 s and more.
REDELIVERY_SECONDS = 0.3
PATIENCE_SECONDS = 50.0
FAULTS = Options(
    latency=0.005, bucket_limit=25, bucket_period=1.0, error_rate=0.10, reset_rate=0.05, rate_limit_rate=0.05, seed=11
)
CRASHES = replace(FAULTS, drop_rate=0.03)
# Short times, so that the lease of a killed server ends within the test.
HURRY = {
    "ENVIRONMENT": "production",
    "THREADS": "80",
    "MAX_WAIT": "3",
    "RECONCILE_BUDGET": "3",
    "LEASE": "10.5",
    "DISCORD_CONNECT_TIMEOUT": "1",
    "DISCORD_READ_TIMEOUT": "1",
}


def test_nothing_is_lost_and_only_crashes_and_lost_answers_make_doubles(tmp_path: Path) -> None:
    """A server is killed every three seconds, and some answers are lost after Discord's acceptance."""
    found = storm(tmp_path, CRASHES, VERSIONS, kill=True)
    assert found.announced.keys() == set(range(1, VERSIONS + 1))
    assert found.statuses == {Status.SENT}
    assert len(found.killed_at) >= 2
    assert not found.unexplained, f"sent again without a crash: {found.unexplained}"


def test_without_crashes_and_lost_answers_each_version_is_sent_once(tmp_path: Path) -> None:
    """Whatever else goes wrong."""
    found = storm(tmp_path, FAULTS, VERSIONS // 2, kill=False)
    assert found.announced == Counter(range(1, VERSIONS // 2 + 1))
    assert found.statuses == {Status.SENT}


@dataclass(frozen=True)
class Found:
    """What the stand-in and the ledger tell afterwards."""

    announced: Counter[int]
    statuses: set[Status]
    killed_at: list[float]
    unexplained: set[int]


def storm(folder: Path, options: Options, count: int, *, kill: bool) -> Found:
    """Save versions, deliver their events in disorder to two servers, then reconcile."""
    store = SQLiteStore(str(folder / "herald.db"))
    versions = [store.save(make_upload(), None) for _ in range(count)]
    with ExitStack() as stack:
        stack.callback(store.close)
        stand_in = stack.enter_context(DiscordStandIn(options))
        ours = HURRY | {"STORE_URL": f"sqlite:///{folder}/herald.db", "DISCORD_WEBHOOK_URL": stand_in.webhook_url}
        environment = clean_environment(**ours)
        servers = [FunctionServer(environment), FunctionServer(environment)]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        with _killing(servers) if kill else ExitStack():
            _deliver(versions, servers)
        killed_at = [at for server in servers for at in server.killed_at]
        _reconcile(store, environment)
        messages = stand_in.messages
        statuses = {delivery.status for version in versions for delivery in store.deliveries(version.key)}
    return Found(_announced(messages), statuses, killed_at, _unexplained(messages, killed_at))


def _deliver(versions: list[PromptVersion], servers: list[FunctionServer]) -> None:
    """Deliver each event one to three times, in random order, each until it is acknowledged."""
    source = random.Random(5)
    events = [version for version in versions for _ in range(source.randint(1, 3))]
    source.shuffle(events)
    deadline = time.monotonic() + PATIENCE_SECONDS
    local = threading.local()

    def deliver(version: PromptVersion) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        headers = event_headers(version)
        while time.monotonic() < deadline:
            url = random.choice(servers).url
            try:
                answer = local.session.post(url, data=version.model_dump_json(), headers=headers, timeout=20)
            except requests.RequestException:
                answer = None
            if answer is not None and answer.ok:
                return
            time.sleep(REDELIVERY_SECONDS)

    with ThreadPoolExecutor(120) as pool:
        list(pool.map(deliver, events))


@contextmanager
def _killing(servers: list[FunctionServer]) -> Iterator[None]:
    """Kill a random server every three seconds, and start it again."""
    stop, source = threading.Event(), random.Random(3)

    def run() -> None:
        while not stop.wait(KILL_EVERY_SECONDS):
            victim = source.choice(servers)
            victim.kill()
            victim.start()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _reconcile(store: SQLiteStore, environment: dict[str, str]) -> None:
    """Run reconcile as its schedule would, until nothing is left."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    command = [sys.executable, str(ROOT / "scripts/reconcile.py"), "--older-than", "0"]
    while True:
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if not store.unannounced(make_upload().created_at, 1, None):
            return
        if time.monotonic() > deadline:
            pytest.fail("reconcile did not end")
        time.sleep(0.5)


def _numbers(message: dict[str, Any]) -> list[int]:
    return [int(embed["fields"][2]["value"]) for embed in message["body"]["embeds"]]


def _announced(messages: list[dict[str, Any]]) -> Counter[int]:
    return Counter(number for message in messages for number in _numbers(message))


def _unexplained(messages: list[dict[str, Any]], killed_at: list[float]) -> set[int]:
    """Return the versions that were sent again although an earlier message's answer and record can have got through."""
    last: dict[int, dict[str, Any]] = {}
    found = set()
    for message in messages:
        for number in _numbers(message):
            earlier = last.get(number)
            if earlier and not earlier["dropped"]:
                first, last_one = earlier["at"] - ON_ITS_WAY_SECONDS, earlier["at"] + UNRECORDED_SECONDS
                found |= set() if any(first <= at <= last_one for at in killed_at) else {number}
            last[number] = message
    return found
