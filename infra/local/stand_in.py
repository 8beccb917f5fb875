"""A strict local stand-in for Discord's webhook API, on 127.0.0.1.

It validates every limit, keeps Discord's rate limits, can inject faults, and writes what it accepted as JSON lines.

    python infra/local/stand_in.py --latency 0.08 --record accepted.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

if __package__ in {None, ""}:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.local.stand_in_rules import UNKNOWN_KEY, Bucket, as_errors, violations, webhook_path

WEBHOOK_ID, TOKEN = "1", "local-stand-in-token"
_V6 = 6
_EDGE_PAGE = b"<html><head><title>502 Bad Gateway</title></head></html>"


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Options:
    """How the stand-in behaves; each is an option of its command line too. Rates are probabilities."""

    latency: float = _option(0.0, "seconds before each answer")
    hang: float = _option(0.0, "seconds before each answer, as a Discord that hangs")
    bucket_limit: int = _option(5, "requests a window of the webhook's bucket, told in headers (0: no limit)")
    bucket_period: float = _option(2.0, "seconds of that window")
    channel_limit: int = _option(0, "requests a window of the channel's bucket, told by its 429 only (Discord: 30)")
    channel_period: float = _option(60.0, "seconds of that window")
    error_rate: float = _option(0.0, "of requests answered 500, 502 or 503")
    reset_rate: float = _option(0.0, "of requests whose connection is reset before anything is accepted")
    drop_rate: float = _option(0.0, "of messages accepted with the connection closed before the answer")
    rate_limit_rate: float = _option(0.0, "of requests answered 429 without a full bucket")
    rate_limit_seconds: float = _option(0.05, "retry_after of those")
    global_rate: float = _option(0.0, "of those that are global")
    status: int = _option(0, "answer every message with this status (401, 403, 404, 500, …; 0: as Discord would)")
    reject_containing: str = _option("", "refuse messages with this text in them (400)")
    gone_threads: str = _option("", "thread ids, by comma, that are unknown (404, code 10003)")
    archived_threads: str = _option("", "thread ids, by comma, that are archived (400, code 50083)")
    ignore_unknown: bool = _option(False, "take messages with fields that Discord does not know, as Discord does")  # noqa: FBT003
    seed: int = _option(0, "of the faults' randomness")


@dataclass(frozen=True)
class _Reply:
    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class _Fault(Exception):
    """End the connection without an answer; `reset`: as a broken one."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class DiscordStandIn:
    """The server; a context manager."""

    def __init__(
        self,
        options: Options | None = None,
        *,
        port: int = 0,
        record: Path | None = None,
        on_message: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.options = options or Options()
        self.counts: Counter[str] = Counter()
        self._accepted: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._random = random.Random(self.options.seed)
        self._bucket = Bucket(self.options.bucket_limit, self.options.bucket_period)
        self._channel = Bucket(self.options.channel_limit, self.options.channel_period)
        self._record = record.open("a", encoding="utf-8") if record else None
        self._on_message = on_message
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.stand_in = self

    def __enter__(self) -> Self:
        """Start to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; requests under way are cut off."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        if self._record:
            self._record.close()

    @property
    def webhook_url(self) -> str:
        """Return the URL as Discord's UI would give it, unversioned."""
        return f"http://127.0.0.1:{self._server.server_port}/api/webhooks/{WEBHOOK_ID}/{TOKEN}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return what was accepted: at, message_id, thread_id, dropped, body."""
        with self._changed:
            return list(self._accepted)

    def wait_for(self, predicate: Callable[[list[dict[str, Any]]], bool], timeout: float) -> bool:
        """Wait until the accepted messages fulfil a predicate; return whether they did in time (seconds)."""
        with self._changed:
            return self._changed.wait_for(lambda: predicate(self._accepted), timeout)

    def describe(self, path: str) -> _Reply:
        """Answer a GET of the webhook."""
        return self._refused(path) or _Reply(
            200, {"id": WEBHOOK_ID, "type": 1, "name": "Local stand-in", "channel_id": "20", "guild_id": "30"}
        )

    def execute(self, path: str, query: dict[str, list[str]], raw: bytes) -> _Reply:
        """Answer a POST of a message. Raises _Fault for an injected one."""
        self.counts["requests"] += 1
        options = self.options
        self._stopped.wait(options.latency + options.hang)
        if self._strikes("reset", options.reset_rate):
            raise _Fault(reset=True)
        if self._strikes("error", options.error_rate):
            return _edge_error(self._random.choice((500, 502, 503)))
        if options.status:
            return _Reply(options.status, {"code": 0, "message": HTTPStatus(options.status).phrase})
        with self._changed:
            limited = self._rate_limited(path)
        reply = limited or self._refused(path) or self._judge(query, raw)
        return _Reply(
            reply.status, reply.body, {**(self._bucket.headers() if options.bucket_limit else {}), **reply.headers}
        )

    def _strikes(self, kind: str, rate: float) -> bool:
        struck = rate > 0 and self._random.random() < rate
        self.counts[f"fault {kind}"] += struck
        return struck

    def _rate_limited(self, path: str) -> _Reply | None:
        options = self.options
        if self._strikes("429", options.rate_limit_rate):
            everywhere = self._random.random() < options.global_rate
            return _too_many(path, options.rate_limit_seconds, "global" if everywhere else "user")
        if (wait := self._bucket.take()) > 0:
            return _too_many(path, wait, "user")
        if options.channel_limit and (wait := self._channel.take()) > 0:
            return _too_many(path, wait, "shared")
        return None

    @staticmethod
    def _refused(path: str) -> _Reply | None:
        match = webhook_path(path)
        if match is None:
            return _Reply(404, {"code": 0, "message": "404: Not Found"})
        if match["id"] != WEBHOOK_ID:
            return _Reply(404, {"code": 10015, "message": "Unknown Webhook"})
        if match["token"] != TOKEN:
            return _Reply(401, {"code": 50027, "message": "Invalid Webhook Token"})
        return None

    def _judge(self, query: dict[str, list[str]], raw: bytes) -> _Reply:
        thread = next(iter(query.get("thread_id", [])), None)
        if thread is not None and thread in self.options.gone_threads.split(","):
            return _Reply(404, {"code": 10003, "message": "Unknown Channel"})
        if thread is not None and thread in self.options.archived_threads.split(","):
            return _Reply(400, {"code": 50083, "message": "Thread is archived"})
        try:
            body = json.loads(raw)
        except ValueError:
            return _Reply(400, {"code": 50109, "message": "The request body contains invalid JSON."})
        found = [each for each in violations(body) if each[1] != UNKNOWN_KEY or not self.options.ignore_unknown]
        marker = self.options.reject_containing
        if marker and marker in raw.decode():
            found.append(("embeds", "REJECTED_HERE", "The stand-in was told to refuse this text."))
        if found:
            self.counts["refused bodies"] += 1
            return _Reply(400, {"code": 50035, "message": "Invalid Form Body", "errors": as_errors(found)})
        return self._accept(thread, body, wait=query.get("wait", [""])[0].lower() in {"true", "1"})

    def _accept(self, thread: str | None, body: dict[str, Any], *, wait: bool) -> _Reply:
        dropped = self._strikes("drop", self.options.drop_rate)
        with self._changed:
            message_id = str(1_000_000_000_000_000_000 + len(self._accepted))
            entry = {"at": time.time(), "message_id": message_id, "thread_id": thread, "dropped": dropped, "body": body}
            self._accepted.append(entry)
            if self._record:
                print(json.dumps(entry, ensure_ascii=False), file=self._record, flush=True)
            self._changed.notify_all()
        if self._on_message:
            self._on_message(entry)
        if dropped:
            raise _Fault(reset=False)
        now = datetime.now(UTC).isoformat()
        message = {"id": message_id, "channel_id": thread or "20", "embeds": body.get("embeds", []), "timestamp": now}
        return _Reply(200, message) if wait else _Reply(204)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    stand_in: DiscordStandIn

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that was reset or stopped is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    wbufsize = -1  # one segment an answer, or delayed acknowledgements cost 40 ms
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._send(self.server.stand_in.describe(urlsplit(self.path).path))

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self._send(self.server.stand_in.execute(parts.path, parse_qs(parts.query), raw))
        except _Fault as fault:
            self.close_connection = True
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send(self, reply: _Reply) -> None:
        self.server.stand_in.counts[f"status {reply.status}"] += 1
        is_page = isinstance(reply.body, bytes)
        body = reply.body if is_page else b"" if reply.body is None else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Via", "1.1 google")
        self.send_header("Content-Type", "text/html" if is_page else "application/json")
        if reply.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's name
        """Stay silent: its line would hold the token."""


def _edge_error(status: int) -> _Reply:
    return _Reply(status, _EDGE_PAGE if status == HTTPStatus.BAD_GATEWAY else {"code": 0, "message": "Server error"})


def _too_many(path: str, seconds: float, scope: str) -> _Reply:
    """Return a 429; on the unversioned API, which is v6, its times are in milliseconds."""
    match = webhook_path(path)
    is_old = match is not None and int(match["version"] or _V6) <= _V6
    unit = 1_000 if is_old else 1
    body = {"message": "You are being rate limited.", "retry_after": seconds * unit, "global": scope == "global"}
    header = str(-int(-seconds * unit // 1))
    return _Reply(429, body, {"Retry-After": header, "X-RateLimit-Scope": scope})


def main() -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="to listen on (0: any free one)")
    parser.add_argument("--record", type=Path, help="append accepted messages to this file, as JSON lines")
    for each in fields(Options):
        default = None if each.default is MISSING else each.default
        flag = "--" + each.name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(flag, dest=each.name, action="store_true", help=each.metadata["help"])
        else:
            parser.add_argument(flag, dest=each.name, type=type(default), default=default, help=each.metadata["help"])
    given = vars(parser.parse_args())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    port, record = given.pop("port"), given.pop("record")
    with DiscordStandIn(Options(**given), port=port, record=record) as stand_in:
        print(f"ready webhook={stand_in.webhook_url}", flush=True)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
