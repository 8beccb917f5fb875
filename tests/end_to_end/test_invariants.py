"""One test for each promise; the README's "What is promised" names them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from herald.announce import Announcer
from herald.lanes import Muted
from herald.model import Reason
from herald.stores.sqlite import SQLiteStore
from infra.local.stand_in import TOKEN as WEBHOOK_TOKEN
from infra.local.stand_in import DiscordStandIn, Options
from infra.local.stand_in_rules import violations
from tests.end_to_end.conftest import TOKEN, running_system, until_asked
from tests.fakes import FakeClock, make_upload

FAULTS = Options(error_rate=0.2, reset_rate=0.1, rate_limit_rate=0.1, bucket_limit=0, seed=7)


@pytest.fixture(scope="module")
def storm(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Counter[int], str]:
    """Upload thirty versions into a storm; return their statuses, how often each was announced, and the log."""
    folder = tmp_path_factory.mktemp("storm")
    log = folder / "log"
    with (
        DiscordStandIn(FAULTS) as stand_in,
        log.open("w") as stderr,
        running_system(folder / "h.db", stand_in.webhook_url, stderr=stderr) as system,
    ):
        prompt = "x" * 200 + "THE-REST-OF-THE-PROMPT"
        with ThreadPoolExecutor(5) as pool:
            urls = list(pool.map(lambda _: system.upload(prompt_content=prompt), range(30)))
        statuses = [system.delivered(url, 60)["status"] for url in urls]
        embeds = [embed for message in stand_in.messages for embed in message["body"]["embeds"]]
    return statuses, Counter(int(embed["fields"][2]["value"]) for embed in embeds), log.read_text()


def test_1_nothing_is_lost(storm: tuple[list[str], Counter[int], str]) -> None:
    """Every saved version ends final."""
    statuses, announced, _ = storm
    assert statuses == ["sent"] * 30
    assert set(announced) == set(range(1, 31))


def test_2_nothing_is_announced_twice(storm: tuple[list[str], Counter[int], str]) -> None:
    """Without a crash or a lost answer, whatever else goes wrong."""
    assert set(storm[1].values()) == {1}


def test_3_no_secret_and_no_full_prompt_is_in_any_log_line(storm: tuple[list[str], Counter[int], str]) -> None:
    """Faults and all."""
    log = storm[2]
    assert "Discord notification sent successfully" in log
    for secret in (WEBHOOK_TOKEN, TOKEN, "THE-REST-OF-THE-PROMPT"):
        assert secret not in log


def test_4_no_text_of_a_user_mentions_or_breaks_out(tmp_path: Path) -> None:
    """The message is valid, allows no mention, and its only fences are its own."""
    hostile = "@everyone <@&1> ```\n# out [x](http://x) ||y|| \u202e"
    with (
        DiscordStandIn() as stand_in,
        running_system(tmp_path / "h.db", stand_in.webhook_url) as system,
    ):
        url = system.upload(prompt_content=hostile * 20, author=hostile[:90], reason=hostile * 20)
        assert system.delivered(url)["status"] == "sent"
    body = stand_in.messages[0]["body"]
    fields = {field["name"]: field["value"] for field in body["embeds"][0]["fields"]}
    assert violations(body) == []
    assert body["allowed_mentions"] == {"parse": []}
    assert fields["📄 Prompt Preview"].count("```") == 2
    assert "```" not in fields["👤 Author"]


def test_5_uploads_do_not_wait_for_discord(tmp_path: Path) -> None:
    """Every upload is answered while Discord keeps an announcement waiting; the bench compares the times."""
    with (
        DiscordStandIn(Options(hang=60.0)) as stand_in,
        running_system(tmp_path / "h.db", stand_in.webhook_url, DISCORD_READ_TIMEOUT="2") as system,
    ):
        system.upload()
        until_asked(stand_in)
        for _ in range(5):
            system.upload()
        assert stand_in.messages == []


@pytest.mark.parametrize("stored", [1, 300])
def test_6_store_operations_of_an_announcement_do_not_grow(tmp_path: Path, stored: int) -> None:
    """The same few statements with one version stored and with hundreds."""
    store, clock = SQLiteStore(str(tmp_path / "h.db")), FakeClock()
    for _ in range(stored):
        version = store.save(make_upload(), None)
    muted = Muted(Reason.NOT_PRODUCTION, store, clock)
    announcer = Announcer({"discord": muted}, {}, store, store, clock, max_wait=9, lease=99)
    assert store._connection
    statements: list[str] = []
    store._connection.set_trace_callback(statements.append)
    assert announcer.announce(version, clock.monotonic() + 9).done
    store._connection.set_trace_callback(None)
    assert len([each for each in statements if each not in {"BEGIN IMMEDIATE", "COMMIT"}]) == 3
    store.close()
