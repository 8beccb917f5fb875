"""Errors as problem+json (RFC 9457): one sentence that a person can act on, never a stack trace."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from herald.errors import IdempotencyConflict, StoreUnavailable

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
# A client that is cut off while it sends often never reads the answer, so a body that is too large is read
# and thrown away, in pieces, up to this size.
_DRAINED_BYTES = 8 * 1024 * 1024
_DRAIN_PIECE = 64 * 1024


def problem(status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Return a problem+json response; `members` are extension members, such as `errors`."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail, **members}
    text = json.dumps(body, ensure_ascii=False) + "\n"
    return Response(text, status, headers, content_type="application/problem+json")


def invalid_fields(error: ValidationError) -> Response:
    """Return 422 naming each invalid field; the values themselves are not repeated."""
    errors = [
        {"field": ".".join(str(part) for part in item["loc"]), "message": item["msg"].removeprefix("Value error, ")}
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    detail = "; ".join(f"{e['field']}: {e['message']}" if e["field"] else e["message"] for e in errors)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def register(app: Flask) -> None:
    """Make every error of `app` a problem+json response."""
    app.register_error_handler(RequestEntityTooLarge, _too_large)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(IdempotencyConflict, _conflict)
    app.register_error_handler(StoreUnavailable, _unavailable)
    app.register_error_handler(Exception, _unexpected)


def _http(error: HTTPException) -> Response:
    if error.response is not None:  # raised with a finished answer: invalid fields
        return error.response  # type: ignore[return-value]  # werkzeug's base class; ours are Flask's
    status = HTTPStatus(error.code or 500)
    if status is HTTPStatus.NOT_FOUND and error.description == type(error).description:
        error.description = f"There is nothing at {request.path}; /openapi.json lists what there is."
    if status is HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        error.description = "Send the body as JSON, with the header Content-Type: application/json."
    if isinstance(error, MethodNotAllowed):
        error.description = (
            f"{request.method} is not allowed at {request.path}; {', '.join(error.valid_methods or ())} is."
        )
    headers = {name: value for name, value in error.get_headers() if name not in {"Content-Type", "Content-Length"}}
    return problem(status, error.description or status.phrase, headers=headers)


def _too_large(_error: RequestEntityTooLarge) -> Response:
    """Answer before the body is read whole.

    functions-framework reads what is left of the body into memory, unless the response is a stream.
    """
    limit = request.max_content_length
    response = problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than the {limit} bytes that are taken."
    )
    text = response.get_data()
    _drain()
    streamed = Response(_once(text), response.status, {"Connection": "close"}, content_type=response.content_type)
    streamed.content_length = len(text)
    return streamed


def _once(text: bytes) -> Iterable[bytes]:
    yield text


def _drain() -> None:
    stream, left = request.environ["wsgi.input"], min(request.content_length or _DRAINED_BYTES, _DRAINED_BYTES)
    while left > 0 and (piece := stream.read(min(_DRAIN_PIECE, left))):
        left -= len(piece)


def _conflict(error: IdempotencyConflict) -> Response:
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, str(error), errors=[{"field": "Idempotency-Key", "message": str(error)}]
    )


def _unavailable(error: StoreUnavailable) -> Response:
    _log.error("Store unavailable", extra={"path": request.path, "detail": str(error)})
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The store does not answer; nothing was saved. Send the same request again in a few seconds.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _unexpected(error: Exception) -> Response:
    _log.error("Unexpected error", extra={"path": request.path, "error": type(error).__name__}, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This is a fault of the server, and it is in its log.")
