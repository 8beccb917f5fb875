"""Log lines: JSON for Cloud Logging, one readable line for a terminal, a webhook's token in neither."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

_TOKEN = re.compile(r"(/webhooks/\d+/)[\w-]+")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Return `text` with every webhook token masked."""
    return _TOKEN.sub(r"\1***", text)


class _Text(logging.Formatter):
    """`12:00:01 INFO  message  agent=eai version=12`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in _STANDARD and v is not None}
        time = self.formatTime(record, "%H:%M:%S")
        tail = "".join(f" {name}={_quoted(value)}" for name, value in fields.items())
        return redact(f"{time} {record.levelname:<7} {record.getMessage()} {tail}".rstrip() + self._trace(record))

    def _trace(self, record: logging.LogRecord) -> str:
        return "\n" + self.formatException(record.exc_info) if record.exc_info else ""


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text) if re.search(r"[\s\"']", text) or not text else text


def _json_formatter() -> logging.Formatter:
    """Return a formatter of one JSON object a line, with the field names that Cloud Logging gives meaning to."""
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415  only where logs are JSON

    class Json(JsonFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return redact(super().format(record))

    return Json("{levelname}{message}", style="{", rename_fields={"levelname": "severity"}, timestamp="time")


def configure(*, as_json: bool) -> None:
    """Send the product's log lines to standard error, once; other libraries' lines are left as they are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json_formatter() if as_json else _Text())
    logger = logging.getLogger("herald")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
