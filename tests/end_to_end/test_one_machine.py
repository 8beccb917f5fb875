"""The systemd unit, and exactly what it runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.stand_in import DiscordStandIn
from tests.conftest import ROOT
from tests.end_to_end.conftest import TOKEN, started

HOME = "/opt/prompt-herald"
# The unit, with this checkout and its Python in place of those of the guide.
UNIT = (
    (ROOT / "infra/local/prompt-herald.service")
    .read_text(encoding="utf-8")
    .replace(f"{HOME}/.venv/bin/python", sys.executable)
    .replace(HOME, str(ROOT))
)
GUIDE = (ROOT / "docs/RUN_ON_ONE_MACHINE.md").read_text(encoding="utf-8")


def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    """It names what it does not know, and programs that are not there."""
    if shutil.which("systemd-analyze") is None:
        message = "systemd-analyze is not installed (Debian: apt-get install systemd)"
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)
    unit = tmp_path / "prompt-herald.service"
    unit.write_text(UNIT, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_what_the_unit_runs_announces_and_stops_by_itself(tmp_path: Path) -> None:
    """With the guide's file of variables and nothing else but its state directory and a webhook of this machine's."""
    (line,) = re.findall(r"^ExecStart=(.+)$", UNIT, re.MULTILINE)
    (block,) = [
        each for each in re.findall(r"^```ini\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL) if "STORE_URL" in each
    ]
    with DiscordStandIn() as stand_in:
        given = {
            "/var/lib/prompt-herald": str(tmp_path),
            "https://discord.com/api/webhooks/ID/TOKEN": stand_in.webhook_url,
            "A-LONG-RANDOM-TOKEN": TOKEN,
        }
        for documented, ours in given.items():
            assert documented in block
            block = block.replace(documented, ours)
        variables = dict(each.split("=", 1) for each in block.splitlines())
        environment = variables | {"PATH": "/usr/bin:/bin"}
        with started([*line.split(), "--api-port", "0", "--announce-port", "0"], environment) as system:
            assert system.delivered(system.upload())["status"] == "sent"
            assert system.stop(signal.SIGTERM) == 0
        assert len(stand_in.messages) == 1
