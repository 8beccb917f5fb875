"""Log lines, as an operator reads them."""

from __future__ import annotations

import json
import logging

import pytest

from herald import logs
from tests.fakes import FAKE_TOKEN, WEBHOOK_URL


def written(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> str:
    """Write one telling line, with an exception whose text holds the token."""
    logs.configure(as_json=as_json)
    log = logging.getLogger("herald.announce")
    try:
        open(WEBHOOK_URL).close()  # noqa: PTH123  any error whose text holds the token
    except OSError:
        log.exception(
            "Failed for %s", WEBHOOK_URL, extra={"agent": "eai", "version": 12, "detail": f"no {WEBHOOK_URL}"}
        )
    return capsys.readouterr().err


def test_a_line_for_cloud_logging_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Severity, message, time and the fields; the trace inside it."""
    text = written(capsys, as_json=True)
    assert FAKE_TOKEN not in text
    (line,) = text.splitlines()
    fields = json.loads(line)
    assert (fields["severity"], fields["agent"], fields["version"]) == ("ERROR", "eai", 12)
    assert fields["message"].startswith("Failed for https://discord.com/api/webhooks/42/")
    assert "time" in fields
    assert "FileNotFoundError" in fields["exc_info"]


def test_a_line_for_a_terminal_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, message, fields."""
    text = written(capsys, as_json=False)
    assert FAKE_TOKEN not in text
    assert "ERROR" in text
    assert "agent=eai version=12 detail='no https" in text
    assert "FileNotFoundError" in text


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Both functions may do it in one process."""
    logs.configure(as_json=False)
    logs.configure(as_json=False)
    logging.getLogger("herald.x").info("once")
    assert capsys.readouterr().err.count("once") == 1
