"""Upload a new prompt version, and see whether it was announced.

    scripts/upload_prompt.py --agent eai --file prompt.xml --author "$USER" --reason "- shorter - kinder"

The API's URL and the upload token come from HERALD_API (default http://127.0.0.1:8080) and HERALD_TOKEN.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

DEFAULT_API = "http://127.0.0.1:8080"
TIMEOUT_SECONDS = 30.0
RETRY = Retry(3, backoff_factor=1, status_forcelist=(500, 502, 503, 504), allowed_methods=None, raise_on_status=False)
FINAL = {"sent", "failed", "suppressed"}


class RefusedError(Exception):
    """The upload did not succeed; the text says why."""


def main() -> int:
    """Upload, report, and wait for the announcement if asked to: 0 announced or saved, 1 not."""
    arguments = _arguments()
    if not arguments.token:
        print("Set HERALD_TOKEN to your upload token, or give --token.", file=sys.stderr)
        return 2
    try:
        body = _body(arguments)
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=RETRY))
            session.mount("https://", HTTPAdapter(max_retries=RETRY))
            session.headers["Authorization"] = f"Bearer {arguments.token}"
            saved, url = _upload(session, arguments.api.rstrip("/"), body)
            print(f"Saved {saved['version_display']} ({saved['change_type']}): {url}")
            return _follow(session, url, arguments.wait) if arguments.wait else 0
    except RefusedError as error:
        print(f"Not saved: {error}", file=sys.stderr)
    except requests.RequestException as error:
        print(f"{arguments.api} cannot be reached ({type(error).__name__}).", file=sys.stderr)
    return 1


def _body(arguments: argparse.Namespace) -> dict[str, Any]:
    body: dict[str, Any] = {"agent_type": arguments.agent}
    body |= {name: value for name in ("author", "reason") if (value := getattr(arguments, name)) is not None}
    try:
        if arguments.file:
            body["prompt_content"] = sys.stdin.read() if arguments.file == "-" else _text(arguments.file)
        if arguments.config:
            body["config"] = json.loads(_text(arguments.config))
    except OSError as error:
        message = f"{error.filename}: {error.strerror}."
        raise RefusedError(message) from error
    except UnicodeDecodeError as error:
        message = f"{arguments.file} is not UTF-8 text."
        raise RefusedError(message) from error
    except ValueError as error:
        message = f"{arguments.config} is not JSON: {error}."
        raise RefusedError(message) from error
    return body


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _upload(session: requests.Session, api: str, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """POST until it is answered; one Idempotency-Key makes the repeats harmless."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answer = session.post(f"{api}/api/v1/unified-save", json=body, headers=headers, timeout=TIMEOUT_SECONDS)
    if not answer.ok:
        raise RefusedError(_detail(answer))
    return answer.json(), api + answer.headers["Location"]


def _follow(session: requests.Session, url: str, seconds: float) -> int:
    """Wait until every delivery is final; say what became of each."""
    deadline = time.monotonic() + seconds
    while True:
        deliveries = session.get(url, timeout=TIMEOUT_SECONDS).json()["deliveries"]
        done = bool(deliveries) and all(each["status"] in FINAL for each in deliveries)
        if done or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    for each in deliveries:
        why = " ".join(str(each[name]) for name in ("reason", "detail") if each[name])
        print(f"{each['channel']}: {each['status']}{f' ({why})' if why else ''}")
    if not done:
        print(f"Not announced within {seconds:g} s; it is on record and will be tried again. Look at {url}")
    return 0 if done and all(each["status"] == "sent" for each in deliveries) else 1


def _detail(answer: requests.Response) -> str:
    try:
        return f"{answer.json()['detail']} ({answer.status_code})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--agent", required=True, help="the agent type, such as eai")
    parser.add_argument("--file", help="the prompt, a file of UTF-8 text (-: standard input)")
    parser.add_argument("--config", help="the agent's configuration, a file with a JSON object")
    parser.add_argument("--author", help="who changed it (default: the name of the token)")
    parser.add_argument("--reason", help='why; "- a - b" becomes bullet lines')
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for the announcement (exit code 1: none)",
    )
    parser.add_argument("--api", default=os.environ.get("HERALD_API", DEFAULT_API), help="URL of the upload API")
    parser.add_argument("--token", default=os.environ.get("HERALD_TOKEN"), help="upload token (better: HERALD_TOKEN)")
    arguments = parser.parse_args()
    if not arguments.file and not arguments.config:
        parser.error("give --file, --config, or both")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
