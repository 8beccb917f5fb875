"""Composition root: builds each part once an instance, at first use. Nothing happens when this is imported."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from threading import RLock
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from flask import Response
from werkzeug.exceptions import BadRequest, HTTPException

from herald import logs
from herald.announce import Announcer, Decoder
from herald.channels.discord import DiscordChannel, Webhook
from herald.clock import SystemClock
from herald.errors import ConfigurationError, HeraldError
from herald.events import local
from herald.lanes import Destination, Lane, Muted
from herald.model import DISCORD, Reason
from herald.pacing import Hold
from herald.settings import Settings

if TYPE_CHECKING:
    from herald.api import Api
    from herald.reconcile import Reconciler
    from herald.stores.firestore import FirestoreStore
    from herald.stores.sqlite import SQLiteStore

    Store = SQLiteStore | FirestoreStore

_log = logging.getLogger(__name__)

T = TypeVar("T")


class _Once(Generic[T]):
    """Builds a part at its first call, once, whatever the number of threads; a failed build is tried again."""

    _lock = RLock()

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._built: list[T] = []

    def __call__(self) -> T:
        if not self._built:
            with self._lock:
                if not self._built:
                    self._built.append(self._build())
        return self._built[0]


def check() -> None:
    """Read every setting, and set up the log. Connects to nothing. Raises ConfigurationError."""
    settings = _settings()
    logs.configure(as_json=settings.logs_are_json)
    StoreUrl.parse(settings.store_url)
    discord_channel(settings)


def health() -> Response:
    """Say that the process answers: for probes of every function."""
    return Response('{"status":"ok"}\n', content_type="application/json")


@_Once
def api() -> Api:
    """Build the upload API."""
    # The announce function starts faster and smaller without these.
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    from herald.api import Api  # noqa: PLC0415
    from herald.save import Saver  # noqa: PLC0415

    settings = _settings()
    saver = Saver(store(), SystemClock(), prefix=settings.version_prefix, zone=ZoneInfo(settings.time_zone))
    return Api(saver, store(), store(), SystemClock(), settings.upload_tokens)


@_Once
def announcer() -> Announcer:
    """Build what announces versions."""
    settings = _settings()
    destinations: Mapping[str, Destination] = {DISCORD: _discord(settings)}
    return Announcer(
        destinations,
        _decoders(),
        store(),
        store(),
        SystemClock(),
        max_wait=settings.max_wait,
        lease=settings.lease,
    )


@_Once
def reconciler() -> Reconciler:
    """Build what announces versions that no event has announced."""
    from herald.reconcile import Reconciler  # noqa: PLC0415  only one of the functions needs it

    settings = _settings()
    return Reconciler(
        store(),
        announcer().announce,
        SystemClock(),
        after=settings.reconcile_after,
        budget=settings.reconcile_budget,
    )


def not_yet(retry_after: float | None) -> Response:
    """Ask the event source to send an event again, if known in how many seconds."""
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    return Response("Not announced yet; send the event again.\n", 503, headers)


def on_crash(error: Exception, event_id: str | None) -> Response:
    """Answer an error that nothing else has: with its own status if it has one, else 503.

    An event that functions-framework cannot read is done. An error's text goes to the log, never to the caller.
    """
    if type(error).__module__.startswith("cloudevents.") or (isinstance(error, BadRequest) and event_id):
        _log.error("Undecodable event dropped: %s", type(error).__name__, extra={"event_id": event_id})
        return Response(status=204)
    if isinstance(error, HTTPException):
        if isinstance(error.response, Response):  # ours
            return error.response
        return Response(f"{error.name}\n", error.code)
    if isinstance(error, HeraldError):
        _log.error("Not done", extra={"event_id": event_id, "error": type(error).__name__, "detail": str(error)})
    else:
        _log.error("Unexpected error", extra={"event_id": event_id, "error": type(error).__name__}, exc_info=error)
    return Response("Not done; see the log.\n", status=503)


class StoreUrl(NamedTuple):
    """Where versions are kept: a file of SQLite's, or a project of Firestore's and its database."""

    path: str | None = None
    project: str | None = None
    database: str | None = None

    @classmethod
    def parse(cls, url: str) -> StoreUrl:
        """Read a STORE_URL. Raises ConfigurationError."""
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite" and len(rest) > 1 and rest.startswith("/"):
            return cls(path=rest[1:])
        if scheme == "firestore" and (named := re.fullmatch(r"([a-z][a-z0-9.:-]*)(?:/([a-z][a-z0-9-]*))?/?", rest)):
            return cls(project=named[1], database=named[2])
        message = (
            "STORE_URL: it must be sqlite:///PATH, such as sqlite:///prompt-herald.db, or "
            "firestore://PROJECT or firestore://PROJECT/DATABASE."
        )
        raise ConfigurationError(message)


def discord_channel(settings: Settings) -> DiscordChannel | None:
    """Return the Discord channel of these settings, or None without a webhook. Raises ConfigurationError."""
    if settings.discord_webhook_url is None:
        return None
    return DiscordChannel(
        Webhook.parse(settings.discord_webhook_url, settings.discord_thread_id),
        environment=settings.environment,
        username=settings.discord_bot_name,
        avatar_url=settings.discord_bot_avatar_url,
        thread_fallback=settings.discord_thread_fallback,
    )


def _discord(settings: Settings) -> Destination:
    channel = discord_channel(settings)
    if not settings.is_production:
        return Muted(Reason.NOT_PRODUCTION, store(), SystemClock())
    if channel is None:
        return Muted(Reason.NOT_CONFIGURED, store(), SystemClock())
    from herald.delivery import Courier  # noqa: PLC0415  requests is large: only who sends pays for it

    courier = Courier(settings.discord_connect_timeout, settings.discord_read_timeout)
    return Lane(channel, courier, store(), SystemClock(), everywhere=Hold())


@_Once
def _settings() -> Settings:
    return Settings.load()


@_Once
def store() -> Store:
    """Open the store that STORE_URL names; each store's driver is imported only if chosen."""
    url = StoreUrl.parse(_settings().store_url)
    if url.path is not None:
        from herald.stores.sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore(url.path)
    from herald.stores.firestore import FirestoreStore  # noqa: PLC0415

    return FirestoreStore(url.project, url.database)


def _decoders() -> dict[str, Decoder]:
    """Return what reads the relay's events, and those of the store that was chosen."""
    decoders: dict[str, Decoder] = {local.TYPE: local.decode}
    if StoreUrl.parse(_settings().store_url).path is None:
        from herald.events import firestore  # noqa: PLC0415

        decoders[firestore.TYPE] = firestore.decode
    return decoders
