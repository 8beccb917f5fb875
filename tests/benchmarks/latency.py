"""Event received → request at Discord: what Prompt Herald adds to the shortest handler there is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import requests
from pydantic import SecretStr

from herald.channels.discord import DiscordChannel, Webhook
from herald.model import PromptVersion
from herald.stores.sqlite import SQLiteStore
from infra.local.stand_in import DiscordStandIn, Options
from tests.benchmarks.rows import Row, percentile
from tests.end_to_end.conftest import clean_environment
from tests.fakes import make_upload
from tests.servers import FunctionServer, event_headers

BARE = Path(__file__).parent / "bare" / "main.py"
EVENTS, WARM_UP = 300, 20
TARGET_MS = 5.0


def measure() -> Iterator[Row]:
    """Send events in turns to a bare handler and to announce; compare when their requests arrive."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stand_in = stack.enter_context(DiscordStandIn(Options(bucket_limit=0)))
        versioned = stand_in.webhook_url.replace("/api/", "/api/v10/")
        store = SQLiteStore(f"{folder}/herald.db")
        stack.callback(store.close)
        ours = FunctionServer(
            clean_environment(
                ENVIRONMENT="production",
                STORE_URL=f"sqlite:///{folder}/herald.db",
                DISCORD_WEBHOOK_URL=stand_in.webhook_url,
            )
        )
        bare = FunctionServer(clean_environment(BARE_URL=versioned), target="post", source=BARE)
        for server in (ours, bare):
            server.start()
            stack.callback(server.kill)
            server.wait_until_up()
        session = stack.enter_context(requests.Session())
        channel = DiscordChannel(Webhook.parse(SecretStr(stand_in.webhook_url)), "production")
        times: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(EVENTS):
            version = store.save(make_upload(), None)
            message = dict(channel.pack([version]).body)
            times["bare"].append(_once(session, bare, version, message, stand_in))
            times["ours"].append(_once(session, ours, version, version.model_dump(mode="json"), stand_in))
    yield from _rows({name: [1_000 * each for each in values[WARM_UP:]] for name, values in times.items()})


def _rows(times: dict[str, list[float]]) -> Iterator[Row]:
    for percent in (50, 95):
        bare, ours = (percentile(times[name], percent) for name in ("bare", "ours"))
        yield Row("latency", "a bare handler", f"p{percent}", round(bare, 2), "ms")
        yield Row("latency", "announce", f"p{percent}", round(ours, 2), "ms")
        beyond = ours - bare
        target, met = (f"{TARGET_MS:g} ms at most", beyond <= TARGET_MS) if percent == 50 else ("", None)
        yield Row("latency", "announce beyond it", f"p{percent}", round(beyond, 2), "ms", target, met)


def _once(
    session: requests.Session,
    server: FunctionServer,
    version: PromptVersion,
    data: object,
    stand_in: DiscordStandIn,
) -> float:
    before = len(stand_in.messages)
    started = time.time()
    session.post(server.url, json=data, headers=event_headers(version), timeout=10).raise_for_status()
    (message,) = stand_in.messages[before:]
    return float(message["at"]) - started
