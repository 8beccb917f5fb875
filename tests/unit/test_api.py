"""The upload API, through functions-framework, as its users call it."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from herald import wiring
from herald.api import MAX_BODY_BYTES
from herald.model import Claim, Outcome, Reason, Settlement, Status, VersionKey
from tests.conftest import FunctionClient, forget_parts
from tests.fakes import NOW

ADA = {"Authorization": "Bearer fake-ada-token"}
SAVE = "/api/v1/unified-save"
MINIMAL = {"agent_type": "eai", "prompt_content": "You are kind."}


@pytest.fixture
def api(function: FunctionClient) -> FlaskClient:
    """Give a client of the upload API."""
    return function("save_prompt_version")


def upload(api: FlaskClient, headers: dict[str, str] | None = None, **body: Any) -> TestResponse:
    return api.post(SAVE, json=MINIMAL | body, headers=ADA | (headers or {}))


def assert_problem(response: TestResponse, status: int, *words: str) -> dict[str, Any]:
    """Check that an error is a problem+json with a sentence that holds `words`; return it."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.data)
    assert problem["status"] == status
    assert problem["title"]
    for word in words:
        assert word in problem["detail"]
    assert "Traceback" not in response.text
    return problem


def test_an_upload_is_answered_with_its_version(api: FlaskClient, environment: pytest.MonkeyPatch) -> None:
    """201 with number and display name; Location leads to the record."""
    environment.setenv("VERSION_PREFIX", "prod-eai")
    forget_parts()
    response = upload(api, author="Ada", reason="- a - b", config={"temperature": 0.2})
    assert response.status_code == 201
    saved = response.get_json()
    assert saved["success"] is True
    assert (saved["agent_type"], saved["version_number"], saved["change_type"]) == ("eai", 1, "both")
    assert saved["version_display"] == f"prod-eai-{saved['created_at'][:10]}-v1"
    assert saved["version_display"] in saved["message"]
    record = api.get(response.headers["Location"], headers=ADA).get_json()
    assert (record["author"], record["reason"], record["uploaded_by"]) == ("Ada", "- a - b", "ada")
    assert (record["prompt_content"], record["config"]) == ("You are kind.", {"temperature": 0.2})
    assert record["deliveries"] == []


def test_author_reason_and_prefix_have_defaults(api: FlaskClient) -> None:
    """The token's name, a plain sentence, the agent type; blank text counts as none."""
    for extra in ({}, {"author": "  ", "reason": ""}, {"author": None, "reason": None}):
        record = api.get(upload(api, **extra).headers["Location"], headers=ADA).get_json()
        assert (record["author"], record["reason"]) == ("ada", "No reason given")
        assert record["version_display"].startswith("eai-20")


def test_the_change_type_is_derived(api: FlaskClient) -> None:
    """From what the upload carries; an explicit null carries nothing."""
    for body, kind in (
        ({"prompt_content": "a"}, "prompt"),
        ({"prompt_content": "a", "config": None}, "prompt"),
        ({"config": {}}, "config"),
        ({"config": {"a": [1, None]}, "prompt_content": "a"}, "both"),
    ):
        response = api.post(SAVE, json={"agent_type": "eai", **body}, headers=ADA)
        assert response.get_json()["change_type"] == kind


def test_the_same_key_makes_one_version(api: FlaskClient) -> None:
    """Whatever the order of its fields; another body is refused; another caller's key is another key."""
    first = upload(api, {"Idempotency-Key": "k1"}, reason="x")
    shuffled = json.dumps({"reason": "x", **MINIMAL}, indent=2)
    again = api.post(SAVE, data=shuffled, content_type="application/json", headers=ADA | {"Idempotency-Key": "k1"})
    assert (again.status_code, again.get_json()) == (201, first.get_json())
    problem = assert_problem(upload(api, {"Idempotency-Key": "k1"}, reason="y"), 422, "Idempotency-Key")
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    bob = upload(api, {"Idempotency-Key": "k1", "Authorization": "Bearer fake-bob-token"}, reason="y")
    assert bob.get_json()["version_number"] == 2


def test_versions_are_listed_newest_first_in_pages(api: FlaskClient) -> None:
    """`next` is what `before` takes, and null at the end."""
    for _ in range(5):
        upload(api)
    url = "/api/v1/agents/eai/versions?limit=2"
    seen, before = [], ""
    for _ in range(3):
        page = api.get(url + before, headers=ADA).get_json()
        seen += [version["version_number"] for version in page["versions"]]
        before = f"&before={page['next']}"
    assert (seen, page["next"]) == ([5, 4, 3, 2, 1], None)
    assert "prompt_content" not in page["versions"][0]
    assert api.get("/api/v1/agents/eai/versions?before=1", headers=ADA).get_json() == {"versions": [], "next": None}


def test_agents_and_the_latest_version_are_found(api: FlaskClient) -> None:
    """An author looks for their agent, then for its newest version."""
    upload(api, agent_type="sales")
    upload(api)
    upload(api, prompt_content="You are brief.")
    agents = api.get("/api/v1/agents", headers=ADA).get_json()["agents"]
    assert [(agent["agent_type"], agent["latest_version"]) for agent in agents] == [("eai", 2), ("sales", 1)]
    latest = api.get("/api/v1/agents/eai/versions/latest", headers=ADA).get_json()
    assert (latest["version_number"], latest["prompt_content"]) == (2, "You are brief.")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"agent_type": "EAI"}, "agent_type"),
        ({"agent_type": "eai\n"}, "agent_type"),
        ({"agent_type": "a" * 65}, "agent_type"),
        ({"agent_type": None}, "agent_type"),
        ({"prompt_content": ""}, "prompt_content"),
        ({"prompt_content": 7}, "prompt_content"),
        ({"prompt_content": "é" * (128 * 1024 + 1)}, "prompt_content"),
        ({"config": {"a": "x" * (64 * 1024)}}, "config"),
        ({"config": [1]}, "config"),
        ({"author": "a" * 101}, "author"),
        ({"reason": "r" * 2001}, "reason"),
        ({"promt_content": "typo"}, "promt_content"),
        ({"prompt_content": None}, ""),
    ],
)
def test_an_invalid_field_is_named(api: FlaskClient, body: dict[str, Any], field: str) -> None:
    """422, and nothing is saved."""
    problem = assert_problem(upload(api, **body), 422)
    assert problem["errors"][0]["field"] == field
    assert problem["errors"][0]["message"] in problem["detail"]
    assert api.get("/api/v1/agents", headers=ADA).get_json() == {"agents": []}


def test_the_largest_fields_are_taken(api: FlaskClient) -> None:
    """256 KiB of UTF-8 and 64 KiB of config, however the client escapes them."""
    config = {"a": "x" * (64 * 1024 - len('{"a":""}'))}
    response = upload(api, prompt_content="é" * (128 * 1024), config=config, author="a" * 100, reason="r" * 2000)
    assert response.status_code == 201
    assert len(api.get(response.headers["Location"], headers=ADA).get_json()["prompt_content"]) == 128 * 1024


@pytest.mark.parametrize("raw", ['{"agent_type": ', '{"config": {"a": NaN}}', '"\\ud800"', "[" * 2000, ""])
def test_malformed_json_is_400(api: FlaskClient, raw: str) -> None:
    """With the place of the mistake."""
    response = api.post(SAVE, data=raw, content_type="application/json", headers=ADA)
    assert_problem(response, 400, "not valid JSON")


@pytest.mark.parametrize("raw", ["[]", "null", '"text"', "7"])
def test_json_that_is_no_object_is_422(api: FlaskClient, raw: str) -> None:
    """It is JSON, but no upload."""
    response = api.post(SAVE, data=raw, content_type="application/json", headers=ADA)
    assert_problem(response, 422, "JSON object")


def test_another_media_type_is_415(api: FlaskClient) -> None:
    """The sentence says which header to send."""
    response = api.post(SAVE, data="agent_type=eai", content_type="text/plain", headers=ADA)
    assert_problem(response, 415, "Content-Type: application/json")


@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer wrong", "Basic fake-ada-token", "Bearer fake-ada-token2", "Bearer \u00e9"]
)
def test_nobody_gets_in_without_a_token(api: FlaskClient, given: str | None) -> None:
    """401 with the challenge, for reading and writing alike, known path or not."""
    headers = {"Authorization": given} if given else {}
    for response in (
        api.post(SAVE, json=MINIMAL, headers=headers),
        api.get("/api/v1/agents", headers=headers),
        api.get("/api/v1/nothing", headers=headers),
    ):
        assert_problem(response, 401, "UPLOAD_TOKENS")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_without_tokens_nobody_gets_in(api: FlaskClient, environment: pytest.MonkeyPatch) -> None:
    """None configured is closed, not open."""
    environment.delenv("UPLOAD_TOKENS")
    forget_parts()
    assert_problem(upload(api), 401)
    assert_problem(api.get("/api/v1/agents", headers={"Authorization": "Bearer "}), 401)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/agents/eai/versions/2",
        "/api/v1/agents/eai/versions/0",
        "/api/v1/agents/eai/versions/one",
        f"/api/v1/agents/eai/versions/{'9' * 30}",
        "/api/v1/agents/nobody/versions/latest",
        "/api/v1/agents/nobody/versions",
        "/api/v2/agents",
        "/elsewhere",
    ],
)
def test_what_is_unknown_is_404(api: FlaskClient, path: str) -> None:
    """With a sentence that names it."""
    upload(api)
    assert_problem(api.get(path, headers=ADA), 404, "There is no")


def settled(number: int, status: Status, reason: Reason | None = None) -> None:
    """Settle the delivery of a version, as announce would."""
    store = wiring.store()
    claim = store.claim(VersionKey("eai", number), "discord", NOW, timedelta(minutes=5))
    assert isinstance(claim, Claim)
    outcome = Outcome(status=status, reason=reason, detail="404 10015 Unknown Webhook")
    store.settle([Settlement(claim=claim, outcome=outcome, concludes=True)], NOW)


def test_what_needs_a_person_is_listed(api: FlaskClient) -> None:
    """Newest first, in pages, with the reason."""
    for number in (1, 2, 3):
        upload(api)
        settled(number, Status.FAILED, Reason.WEBHOOK_GONE)
    url = "/api/v1/deliveries?status=failed&limit=2"
    page = api.get(url, headers=ADA).get_json()
    assert [each["version_number"] for each in page["deliveries"]] == [3, 2]
    assert (page["deliveries"][0]["reason"], page["deliveries"][0]["channel"]) == ("webhook_gone", "discord")
    rest = api.get(
        "/api/v1/deliveries", query_string={"status": "failed", "before": page["next"]}, headers=ADA
    ).get_json()
    assert ([each["version_number"] for each in rest["deliveries"]], rest["next"]) == ([1], None)
    assert_problem(api.get("/api/v1/deliveries?status=lost", headers=ADA), 422, "status")
    assert_problem(api.get("/api/v1/deliveries?status=failed&before=x", headers=ADA), 422, "before")


def test_a_failed_version_can_be_sent_again(api: FlaskClient) -> None:
    """With a body or without; the answer says when; the version is unannounced again."""
    for number, body in ((1, None), (2, {"channel": "discord"}), (3, {})):
        location = upload(api).headers["Location"]
        settled(number, Status.FAILED)
        response = api.post(f"{location}/redeliver", headers=ADA, **({"json": body} if body is not None else {}))
        assert (response.status_code, response.get_json()["reopened"]) == (202, ["discord"])
        assert "reconcile" in response.get_json()["message"]
        record = api.get(location, headers=ADA).get_json()
        assert (record["announced"], record["deliveries"][0]["status"]) == (False, "released")


def test_what_cannot_be_sent_again_is_refused_with_its_state(api: FlaskClient) -> None:
    """409 for what is sent or has not been tried; 404 for what is not there; 401 without a token."""
    location = upload(api).headers["Location"]
    assert_problem(api.post(f"{location}/redeliver", headers=ADA), 409, "no deliveries yet")
    settled(1, Status.SENT)
    assert_problem(api.post(f"{location}/redeliver", headers=ADA), 409, "discord is sent")
    assert_problem(api.post(f"{location}/redeliver", json={"chanel": "x"}, headers=ADA), 422, "chanel")
    assert_problem(api.post("/api/v1/agents/eai/versions/9/redeliver", headers=ADA), 404)
    assert_problem(api.post(f"{location}/redeliver"), 401)


def test_a_wrong_method_is_405(api: FlaskClient) -> None:
    """It says which one is right."""
    response = api.get(SAVE, headers=ADA)
    assert_problem(response, 405, "POST")
    assert "POST" in response.headers["Allow"]


def test_a_body_that_is_too_large_is_413(api: FlaskClient) -> None:
    """By its announced length, before it is read."""
    response = api.post(SAVE, data=b"x" * (MAX_BODY_BYTES + 1), content_type="application/json", headers=ADA)
    assert_problem(response, 413, str(MAX_BODY_BYTES))


def test_a_locked_store_is_503_and_nothing_is_half_made(
    api: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told when to come back; the same request succeeds then, with the next number."""
    monkeypatch.setattr("herald.stores.sqlite._BUSY_SECONDS", 0.05)
    upload(api)
    other = sqlite3.connect(tmp_path / "herald.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    response = upload(api)
    assert_problem(response, 503, "nothing was saved")
    assert int(response.headers["Retry-After"]) > 0
    other.execute("ROLLBACK")
    other.close()
    assert upload(api).get_json()["version_number"] == 2


def test_a_fault_of_ours_shows_no_trace(api: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sees one sentence; the trace is in the log."""

    def explode(*_: Any) -> None:
        message = "secret inner text"
        raise RuntimeError(message)

    monkeypatch.setattr("herald.stores.sqlite.SQLiteStore.agents", explode)
    response = api.get("/api/v1/agents", headers=ADA)
    assert_problem(response, 500)
    assert "secret inner text" not in response.text


def test_health_and_documentation_need_no_token_and_no_network(api: FlaskClient) -> None:
    """The docs page refers to nothing outside this server."""
    assert api.get("/health").get_json() == {"status": "ok"}
    document = api.get("/openapi.json").get_json()
    assert SAVE in document["paths"]
    assert {"201", "422"} <= document["paths"][SAVE]["post"]["responses"].keys()
    page = api.get("/docs", follow_redirects=True)
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
