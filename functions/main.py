"""Entry points, as functions-framework and Cloud Run functions name them."""

from __future__ import annotations

import gc

gc.disable()  # it finds nothing to free while modules load, and takes a sixth of a cold start

import flask
import functions_framework
from cloudevents.http import CloudEvent

from herald import wiring
from herald.errors import ConfigurationError

gc.enable()

# functions-framework loads this file inside its app context: the process is starting, so a wrong setting
# ends it here, with one sentence. A plain import (a test, a tool) reads nothing.
if flask.has_app_context():
    try:
        wiring.check()
    except ConfigurationError as error:
        message = f"prompt-herald: wrong configuration. {error}"
        raise SystemExit(message) from None
    flask.current_app.add_url_rule("/health", "herald.health", wiring.health)


@functions_framework.http
def save_prompt_version(request: flask.Request) -> flask.typing.ResponseReturnValue:
    """Upload API."""
    return wiring.api()(request)


@functions_framework.cloud_event
def announce_version(event: CloudEvent) -> None:
    """Announce the version of a document-created event; 503 asks the event source to send it again."""
    announcement = wiring.announcer().receive(event.get_attributes(), event.get_data())
    if not announcement.done:
        flask.abort(wiring.not_yet(announcement.retry_after))


@functions_framework.http
def reconcile(request: flask.Request) -> flask.typing.ResponseReturnValue:
    """Announce the versions that no event has announced; answer with a summary, as JSON."""
    if request.method != "POST":
        flask.abort(405)
    return wiring.reconciler().run().model_dump()


@functions_framework.errorhandler(Exception)  # type: ignore[untyped-decorator]  # it ships no types
def on_error(error: Exception) -> flask.typing.ResponseReturnValue:
    """Answer what reaches functions-framework, without a stack trace and without an echo of the request."""
    return wiring.on_crash(error, flask.request.headers.get("ce-id"))
