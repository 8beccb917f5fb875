"""From an upload to the channel, through real servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from infra.local.stand_in import DiscordStandIn, Options
from tests.conftest import ROOT
from tests.end_to_end.conftest import TOKEN, System, clean_environment, running_system, until_asked


def test_an_upload_shows_in_the_channel(system: System, shared_stand_in: DiscordStandIn) -> None:
    """Who, what, why, which version; and the record knows the message."""
    url = system.upload("shown", author="Ada", reason="- shorter - kinder")
    delivery = system.delivered(url)
    assert delivery["status"] == "sent"
    (message,) = [m for m in shared_stand_in.messages if m["message_id"] == delivery["message_id"]]
    (embed,) = [e for e in message["body"]["embeds"] if e["fields"][0]["value"] == "shown"]
    fields = {field["name"]: field["value"] for field in embed["fields"]}
    assert embed["title"] == "🚀 New Prompt Version Deployed"
    assert fields["👤 Author"] == "Ada"
    assert fields["📝 Reason"] == "• shorter\n• kinder"
    assert fields["🔢 Version Number"] == "1"
    assert system.get(url)["announced"] is True


def test_fifty_uploads_at_once_get_one_number_each_and_are_announced_once(
    system: System, shared_stand_in: DiscordStandIn
) -> None:
    """No gap, no double, none lost."""
    with ThreadPoolExecutor(50) as pool:
        urls = list(pool.map(lambda _: system.upload("racing"), range(50)))
    assert {int(url.rpartition("/")[2]) for url in urls} == set(range(1, 51))
    for url in urls:
        assert system.delivered(url, 40)["status"] == "sent"
    embeds = [embed for message in shared_stand_in.messages for embed in message["body"]["embeds"]]
    announced = [int(e["fields"][2]["value"]) for e in embeds if e["fields"][0]["value"] == "racing"]
    assert sorted(announced) == list(range(1, 51))


def test_a_body_cut_off_by_its_size_is_answered(system: System) -> None:
    """413 reaches a client that is still sending, whether it announces the length or not."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    pieces = (b"x" * 65_536 for _ in range(32))
    for data in (b"x" * 2_000_000, pieces):
        answer = requests.post(f"{system.api}/api/v1/unified-save", data=data, headers=headers, timeout=10)
        assert answer.status_code == 413
        assert "larger than" in answer.json()["detail"]


def test_an_upload_neither_waits_for_discord_nor_fails_with_it(tmp_path: Path) -> None:
    """Discord hangs, then refuses; the uploads succeed, and what was saved arrives when Discord is back."""
    with (
        DiscordStandIn(Options(hang=30.0)) as stand_in,
        running_system(tmp_path / "h.db", stand_in.webhook_url, DISCORD_READ_TIMEOUT="0.5") as system,
    ):
        urls = [system.upload() for _ in range(3)]
        assert stand_in.messages == []
        stand_in.options = Options(status=503)
        urls.append(system.upload())
        stand_in.options = Options()
        assert {system.delivered(url, 40)["status"] for url in urls} == {"sent"}


def test_what_was_not_announced_before_a_stop_is_announced_after_the_restart(tmp_path: Path) -> None:
    """An unannounced version outlives the end of every process."""
    with DiscordStandIn(Options(status=500)) as stand_in:
        with running_system(tmp_path / "h.db", stand_in.webhook_url, MAX_WAIT="0.2") as system:
            url = system.upload()
            assert system.stop() == 0
        assert stand_in.messages == []
        stand_in.options = Options()
        with running_system(tmp_path / "h.db", stand_in.webhook_url) as system:
            path = url.partition("/api")[2]
            assert system.delivered(f"{system.api}/api{path}", 60)["status"] == "sent"
        assert len(stand_in.messages) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Both functions, their workers and the ports are gone."""
    with DiscordStandIn() as stand_in, running_system(tmp_path / "h.db", stand_in.webhook_url) as system:
        children = _children(system.process.pid)
        assert len(children) >= 2
        assert system.stop(number) == 0
        assert not [pid for pid in children if _is_alive(pid)]
        for url in (system.api, system.announce):
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_when_one_part_ends_all_of_it_ends(tmp_path: Path) -> None:
    """Whoever supervises it starts it anew, whole."""
    with DiscordStandIn() as stand_in, running_system(tmp_path / "h.db", stand_in.webhook_url) as system:
        children = _children(system.process.pid)
        os.kill(next(pid for pid in children if _is_relay(pid)), signal.SIGKILL)
        assert system.process.wait(20) == 1
        assert not [pid for pid in children if _is_alive(pid)]


def test_a_signal_on_the_way_out_does_not_cut_it_short(tmp_path: Path) -> None:
    """A part has ended, the others are finishing what is on its way, and the supervisor says SIGTERM."""
    with (
        DiscordStandIn(Options(hang=60.0)) as stand_in,
        running_system(tmp_path / "h.db", stand_in.webhook_url, DISCORD_READ_TIMEOUT="3", MAX_WAIT="1") as system,
    ):
        system.upload()
        until_asked(stand_in)
        children = _children(system.process.pid)
        os.kill(next(pid for pid in children if _is_relay(pid)), signal.SIGKILL)
        time.sleep(1.0)  # it looks twice a second
        system.process.send_signal(signal.SIGTERM)
        assert system.process.wait(20) == 1
        assert not [pid for pid in children if _is_alive(pid)]


def test_everything_listens_on_loopback_only(system: System) -> None:
    """Nobody else on the network can upload."""
    port = int(system.api.rpartition(":")[2])
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    ]
    assert listening == [f"0100007F:{port:04X}"]


@pytest.mark.parametrize(
    ("variables", "flags", "words"),
    [
        ({"DISCORD_WEBHOOK_URL": "https://example.com/x"}, [], "DISCORD_WEBHOOK_URL"),
        ({}, ["--store", "postgres://x"], "STORE_URL"),
        ({}, ["--api-port", "PORT"], "port"),
        ({}, ["--no-stand-in"], "DISCORD_WEBHOOK_URL, ENVIRONMENT, UPLOAD_TOKENS is missing"),
        ({"DISCORD_WEBHOOK_URL": "", "ENVIRONMENT": "production"}, ["--no-stand-in"], "DISCORD_WEBHOOK_URL, UPLOAD_"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(
    tmp_path: Path, variables: dict[str, str], flags: list[str], words: str
) -> None:
    """No stack trace, exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = [flag.replace("PORT", str(taken.getsockname()[1])) for flag in flags]
        environment = clean_environment(STORE_URL=f"sqlite:///{tmp_path}/h.db") | variables
        command = [sys.executable, str(ROOT / "scripts/local.py"), "--once", *given]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_timer_of_seconds_delays_an_announcement(system: System, shared_stand_in: DiscordStandIn) -> None:
    """The bench measures it; here, a wide margin."""
    system.delivered(system.upload("quick"))
    before = len(shared_stand_in.messages)
    started = time.monotonic()
    system.upload("quick")
    assert shared_stand_in.wait_for(lambda messages: len(messages) > before, 5)
    assert time.monotonic() - started < 5


def test_a_muted_system_says_why_on_the_record(tmp_path: Path) -> None:
    """An author in staging sees that, and why, nothing was announced."""
    with DiscordStandIn() as stand_in:
        with running_system(tmp_path / "h.db", stand_in.webhook_url, ENVIRONMENT="staging") as system:
            delivery = system.delivered(system.upload())
        assert (delivery["status"], delivery["reason"]) == ("suppressed", "not_production")
        assert stand_in.messages == []


def _children(pid: int) -> list[int]:
    """Return the process ids of all descendants."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [(int(line.split()[0]), int(line.split()[1])) for line in listed.splitlines()]
    direct = [child for child, parent in parents if parent == pid]
    return direct + [each for child in direct for each in _children(child)]


def _is_relay(pid: int) -> bool:
    return "relay.py" in Path(f"/proc/{pid}/cmdline").read_text()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
