"""Bring unannounced versions to the announce function, until SIGINT or SIGTERM.

Configured by the environment, as the functions are (STORE_URL), but for what its flags tell.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

import _path  # noqa: F401  it makes herald and infra importable
from herald import wiring
from herald.errors import ConfigurationError
from herald.stores.sqlite import SQLiteStore
from infra.local.relay import CONNECT_SECONDS, GRACE_SECONDS, POLL_SECONDS, Relay, neighbourly

_log = logging.getLogger("herald.relay")

POLL_BILLED_SECONDS = 1.0  # Firestore bills a look that finds nothing as one read


def main() -> int:
    """Relay until SIGINT or SIGTERM; then finish what is on its way."""
    stop = _stop_at_signal()
    arguments = _arguments()
    try:
        wiring.check()
    except ConfigurationError as error:
        print(f"prompt-herald: wrong configuration. {error}", file=sys.stderr)
        return 2
    if arguments.health_port is not None:
        _serve_health(arguments.health_port)
    if _wait_for(arguments.announce_url, stop):
        store = wiring.store()
        poll = POLL_SECONDS if isinstance(store, SQLiteStore) else POLL_BILLED_SECONDS
        relay = Relay(store.unannounced, arguments.announce_url, poll=poll, older_than=arguments.older_than)
        left = relay.run(stop, arguments.grace)
        if left:
            _log.warning("The relay stops before some versions are announced", extra={"left": left})
    return 0


def _stop_at_signal() -> threading.Event:
    """Return what SIGINT and SIGTERM set: from a thread, since a handler might find the event's own lock held."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    stop = threading.Event()

    def wait() -> None:
        signal.sigwait(signals)
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    return stop


def _wait_for(url: str, stop: threading.Event) -> bool:
    """Wait until the announce function answers, so that no event is spent on one that is starting."""
    session, is_said = neighbourly(), False
    while not stop.is_set():
        try:
            session.get(f"{url}/health", timeout=CONNECT_SECONDS)
        except requests.RequestException:
            if not is_said:
                _log.info("Waiting for the announce function", extra={"url": url})
            is_said = True
            stop.wait(0.2)
        else:
            return True
    return False


def _serve_health(port: int) -> None:
    """Answer GET with 200 for as long as this process runs."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent: a probe every few seconds is no news."""

    server = ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), port), Health)  # noqa: S104  for the kubelet
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--announce-url", default="http://127.0.0.1:8081", help="where the announce function listens")
    parser.add_argument(
        "--grace", type=float, default=GRACE_SECONDS, help="seconds to finish what is on its way at a stop (default 30)"
    )
    parser.add_argument("--health-port", type=int, help="answer GET /health there")
    parser.add_argument(
        "--older-than", type=float, help="seconds; where the store has events of its own: relay what they leave"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
