"""Two versions of a sample prompt, uploaded and awaited: what `make demo` shows."""

from __future__ import annotations

import time
from typing import Any

import requests

from _path import ROOT

AGENT = "eai"
ARRIVE_SECONDS = 30.0
SAMPLES = (
    ("prompt-v1.xml", "First version for the support desk"),
    (
        "prompt-v2.xml",
        "- Answer in the customer's language - Never promise a delivery date - Hand over after two failed tries",
    ),
)


def announce_samples(api: str, token: str, *, quiet: bool) -> bool:
    """Upload the samples; return whether each announcement has arrived."""
    arrived = []
    for file, reason in SAMPLES:
        prompt = (ROOT / "samples" / file).read_text(encoding="utf-8")
        body = {"agent_type": AGENT, "prompt_content": prompt, "author": "Ada Lovelace", "reason": reason}
        answer = requests.post(
            f"{api}/api/v1/unified-save", json=body, headers={"Authorization": f"Bearer {token}"}, timeout=10
        )
        if not answer.ok:
            print(f"The upload was refused: {answer.text.strip()}")
            return False
        delivery = _final_delivery(api + answer.headers["Location"], token)
        arrived.append(delivery.get("status") == "sent")
        if not quiet and not arrived[-1]:
            why = delivery.get("reason") or "it is still open"
            print(f"{answer.json()['version_display']} was not announced: {why}.")
    return all(arrived)


def _final_delivery(url: str, token: str) -> dict[str, Any]:
    """Wait for a version's delivery to be final; return it, or what there is of it in the end."""
    deadline = time.monotonic() + ARRIVE_SECONDS
    delivery: dict[str, Any] = {}
    while time.monotonic() < deadline:
        found = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).json()["deliveries"]
        delivery = found[0] if found else {}
        if delivery.get("status") in {"sent", "failed", "suppressed"}:
            return delivery
        time.sleep(0.05)
    return delivery
