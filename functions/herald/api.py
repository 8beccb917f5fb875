"""The HTTP face of save: routes, authentication, paging. Never talks to a channel."""

from __future__ import annotations

import functools
import hmac
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import pydantic_core
from flask import Request, Response, abort, g, redirect, request
from flask.ctx import RequestContext
from flask.json.provider import DefaultJSONProvider
from flask_openapi3 import Info, OpenAPI, Tag
from pydantic import BaseModel, SecretStr

from herald import problems
from herald.model import Content, PromptVersion, VersionKey
from herald.ports import Clock, Ledger, VersionStore
from herald.representations import (
    AgentPath,
    Agents,
    Deliveries,
    DeliveryQuery,
    IdempotencyHeader,
    Page,
    RedeliverRequest,
    Reopened,
    Saved,
    VersionDetail,
    VersionPath,
    Versions,
)
from herald.save import MAX_CONFIG_BYTES, MAX_PROMPT_BYTES, Saver, SaveRequest

# JSON escapes take up to three bytes for one of UTF-8 text (é, emoji); and room for the other fields.
MAX_BODY_BYTES = 3 * (MAX_PROMPT_BYTES + MAX_CONFIG_BYTES) + 16 * 1024
# A POST here may come without a body.
_BODY_OPTIONAL = frozenset({"redeliver"})
_LOCKED: list[dict[str, list[Any]]] = [{"upload token": []}]
_TOKEN_SCHEME: dict[str, Any] = {"upload token": {"type": "http", "scheme": "bearer"}}


class StrictJSON(DefaultJSONProvider):
    """JSON as RFC 8259 has it: no NaN, no lone surrogates, no unbounded depth."""

    @staticmethod
    def loads(s: str | bytes, **_kwargs: Any) -> Any:
        """Parse one document. Raises ValueError with the place of the mistake."""
        return pydantic_core.from_json(s, allow_inf_nan=False)


class Api:
    """The upload API as one callable for functions-framework."""

    def __init__(
        self,
        saver: Saver,
        store: VersionStore,
        ledger: Ledger,
        clock: Clock,
        tokens: Mapping[str, SecretStr],
        *,
        title: str = "Prompt Herald",
    ) -> None:
        """Build the routes; `tokens` maps a name to its bearer token (none: nobody gets in)."""
        self._saver, self._store, self._ledger, self._clock = saver, store, ledger, clock
        self._tokens = {name: token.get_secret_value().encode() for name, token in tokens.items()}
        self._app = OpenAPI(
            __name__,
            info=Info(title=title, version="1", description="Upload prompt versions; see whether they were announced."),
            security_schemes=_TOKEN_SCHEME,
            validation_error_callback=problems.invalid_fields,
            doc_prefix="/docs",
        )
        self._app.json = StrictJSON(self._app)
        self._app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        self._app.before_request(self._admit)
        problems.register(self._app)
        self._add_routes()

    def __call__(self, outer: Request) -> Response:
        """Answer a request that functions-framework has received; the request object is shared with it."""
        outer.json_module = self._app.json  # Flask gave it the outer app's
        with RequestContext(self._app, outer.environ, request=outer):
            return self._app.full_dispatch_request()

    def _add_routes(self) -> None:
        app = self._app
        versions, deliveries = [Tag(name="versions")], [Tag(name="deliveries")]
        app.post("/api/v1/unified-save", tags=versions, responses={201: Saved}, security=_LOCKED)(_view(self.save))
        app.get("/api/v1/agents", tags=versions, responses={200: Agents}, security=_LOCKED)(_view(self.agents))
        app.get("/api/v1/agents/<agent_type>/versions", tags=versions, responses={200: Versions}, security=_LOCKED)(
            _view(self.versions)
        )
        app.get(
            "/api/v1/agents/<agent_type>/versions/<number>",
            tags=versions,
            responses={200: VersionDetail},
            security=_LOCKED,
        )(_view(self.version))
        app.post(
            "/api/v1/agents/<agent_type>/versions/<number>/redeliver",
            tags=deliveries,
            responses={202: Reopened},
            security=_LOCKED,
        )(_view(self.redeliver))
        app.get("/api/v1/deliveries", tags=deliveries, responses={200: Deliveries}, security=_LOCKED)(
            _view(self.deliveries)
        )
        app.get("/health", tags=[Tag(name="service")])(_view(self.health))
        app.add_url_rule("/openapi.json", "openapi_document", lambda: app.api_doc)
        for path in ("/", "/docs", "/docs/"):
            app.add_url_rule(path, f"docs at {path}", lambda: redirect("/docs/swagger"))

    def save(self, header: IdempotencyHeader, body: SaveRequest) -> Response:
        """Upload a new version of an agent's prompt, its config, or both."""
        version = self._saver.save(body, g.token_name, header.idempotency_key)
        saved = Saved(
            agent_type=version.agent_type,
            version_number=version.version_number,
            version_display=version.version_display,
            change_type=version.change_type,
            created_at=version.created_at,
            message=f"Saved {version.version_display}; its announcement follows.",
        )
        location = f"/api/v1/agents/{version.agent_type}/versions/{version.version_number}"
        return _json(saved, HTTPStatus.CREATED, Location=location)

    def agents(self) -> Response:
        """List the agents."""
        return _json(Agents(agents=self._store.agents()))

    def versions(self, path: AgentPath, query: Page) -> Response:
        """List an agent's versions, newest first."""
        found = self._store.versions(path.agent_type, query.limit + 1, query.before)
        if not found and not self._store.versions(path.agent_type, 1, None):
            abort(HTTPStatus.NOT_FOUND, f"There is no agent {path.agent_type!r}; GET /api/v1/agents lists them.")
        page = found[: query.limit]
        return _json(Versions(versions=page, next=page[-1].version_number if len(found) > len(page) else None))

    def version(self, path: VersionPath) -> Response:
        """Show one version with its full prompt and config, and its deliveries."""
        version = self._find(path)
        content = self._store.content(version.key) or Content()
        return _json(
            VersionDetail(
                **version.model_dump(),
                prompt_content=content.prompt_content,
                config=None if content.config is None else json.loads(content.config),
                deliveries=self._ledger.deliveries(version.key),
            )
        )

    def deliveries(self, query: DeliveryQuery) -> Response:
        """List deliveries by status, newest first: what failed, or was suppressed."""
        found = self._ledger.deliveries_in(query.status, query.limit + 1, query.position, query.since)
        page = found[: query.limit]
        return _json(Deliveries(deliveries=page, next=str(page[-1].position) if len(found) > len(page) else None))

    def redeliver(self, path: VersionPath, body: RedeliverRequest) -> Response:
        """Reopen failed and suppressed deliveries of a version; reconcile, or the relay, announces it."""
        key = self._find(path).key
        reopened = self._ledger.reopen(key, body.channel, self._clock.now())
        if not reopened:
            stand = ", ".join(f"{each.channel} is {each.status}" for each in self._ledger.deliveries(key))
            abort(
                HTTPStatus.CONFLICT,
                f"Nothing of {key} can be sent again{f' on {body.channel}' if body.channel else ''}: "
                f"{stand or 'it has no deliveries yet'}. Only failed and suppressed deliveries can be reopened.",
            )
        message = f"{key} will be announced again on {', '.join(reopened)} within minutes, by reconcile or the relay."
        answer = Reopened(agent_type=key.agent_type, version_number=key.number, reopened=reopened, message=message)
        return _json(answer, HTTPStatus.ACCEPTED)

    def health(self) -> Response:
        """Say that the process answers."""
        return Response('{"status":"ok"}\n', content_type="application/json")

    def _find(self, path: VersionPath) -> PromptVersion:
        found = None
        if path.number == "latest":
            found = self._store.latest(path.agent_type)
        elif path.number.isascii() and path.number.isdigit() and len(path.number) < 18:  # noqa: PLR2004  fits 64 bits
            found = self._store.version(VersionKey(path.agent_type, int(path.number)))
        if found is None:
            abort(HTTPStatus.NOT_FOUND, f"There is no version {path.number} of agent {path.agent_type!r}.")
        return found

    def _admit(self) -> Response | None:
        """Let a request through to its route: body small enough, token known, JSON well-formed."""
        body = request.get_data()  # 413 by its Content-Length; read now, or functions-framework reads it later
        if request.content_length is None and len(body) >= MAX_BODY_BYTES:  # chunked, and cut off at the limit
            abort(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if not request.path.startswith("/api/"):
            return None
        name = self._token_name()
        if name is None:
            return problems.problem(
                HTTPStatus.UNAUTHORIZED,
                "Send a known upload token as Authorization: Bearer TOKEN; the tokens are set in UPLOAD_TOKENS.",
                headers={"WWW-Authenticate": 'Bearer realm="prompt-herald"'},
            )
        g.token_name = name
        if request.method == "POST" and request.url_rule and (body or request.endpoint not in _BODY_OPTIONAL):
            _check_json()
        return None

    def _token_name(self) -> str | None:
        """Return whose token it is. Every token is compared, each in constant time."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        names = [name for name, token in self._tokens.items() if hmac.compare_digest(token, given.strip().encode())]
        return names[0] if names else None


def _view(method: Callable[..., Response]) -> Callable[..., Response]:
    """Wrap a bound method in a function: flask-openapi3 puts attributes on its views."""

    @functools.wraps(method)
    def view(*args: Any, **kwargs: Any) -> Response:
        return method(*args, **kwargs)

    return view


def _check_json() -> None:
    """Tell a wrong media type (415), malformed JSON (400) and no object (422) from invalid fields."""
    if not request.is_json:
        abort(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    parsed = request.get_json(silent=True)  # cached: the route's own call does not parse again
    if parsed is None:
        try:
            pydantic_core.from_json(request.get_data(), allow_inf_nan=False)
        except ValueError as error:
            abort(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {error}.")
    if not isinstance(parsed, dict):
        abort(HTTPStatus.UNPROCESSABLE_ENTITY, "The body must be a JSON object.")


def _json(model: BaseModel, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    return Response(model.model_dump_json() + "\n", status, headers, content_type="application/json")
