"""Stand-ins that behave: a clock that tests own, a courier that answers from a script, sample versions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from herald.errors import Undelivered
from herald.model import ChangeType, Content, PromptVersion, Upload
from herald.ports import Answer, Request

NOW = datetime(2025, 8, 20, 12, 0, tzinfo=UTC)
FAKE_TOKEN = "visibly-fake-token"
WEBHOOK_URL = f"https://discord.com/api/webhooks/42/{FAKE_TOKEN}"


class FakeClock:
    """Time that passes only by waiting."""

    def __init__(self, now: datetime = NOW) -> None:
        self.wall = now
        self.seconds = 1_000.0
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:  # noqa: ARG002
        assert seconds is not None, "nobody would ever wake this thread"
        self.waits.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)


class FakeCourier:
    """Answers each request from a script (its last line for ever), and keeps what it was given."""

    def __init__(self, *script: Answer | Undelivered | Callable[[Request], Answer]) -> None:
        self.script: list[Any] = list(script)
        self.requests: list[Request] = []

    def post(self, request: Request) -> Answer:
        self.requests.append(request)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Undelivered):
            raise step
        return step(request) if callable(step) else step  # type: ignore[no-any-return]

    @property
    def carried(self) -> list[list[int]]:
        """The version numbers of each request."""
        return [[key.number for key in request.carries] for request in self.requests]


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    """Make an answer; `x_ratelimit_remaining="0"` becomes a header."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


OK = answer(200, {"id": "555"})


def make_version(number: int = 1, **changes: Any) -> PromptVersion:
    """Make a version record, complete and ordinary but for `changes`."""
    values: dict[str, Any] = {
        "agent_type": "eai",
        "version_number": number,
        "version_display": f"eai-2025-08-20-v{number}",
        "change_type": ChangeType.PROMPT,
        "author": "Ada Lovelace",
        "reason": "Shorter answers",
        "uploaded_by": "ada",
        "created_at": NOW,
        "prompt_preview": "You are kind.",
        "prompt_bytes": 13,
    }
    return PromptVersion(**(values | changes))


def make_upload(
    agent: str = "eai",
    prompt: str | None = "You are kind.",
    config: str | None = None,
    created_at: datetime = NOW,
) -> Upload:
    """Make an upload, ready for a store."""
    return Upload(
        agent_type=agent,
        content=Content(prompt_content=prompt, config=config),
        author="Ada Lovelace",
        reason="Shorter answers",
        uploaded_by="ada",
        created_at=created_at,
        display_prefix=agent,
        display_date="2025-08-20",
    )


def in_threads(calls: Iterable[Callable[[], Any]]) -> Sequence[Any]:
    """Run calls at once, each in a thread; return their results or the exceptions they raised, in order."""
    jobs = list(calls)
    results: list[Any] = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = jobs[index]()
        except Exception as error:  # noqa: BLE001
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread was left waiting"
    return results
