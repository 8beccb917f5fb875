"""The manifests, and exactly what they run."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import requests
import yaml

from infra.local.stand_in import DiscordStandIn
from tests.conftest import ROOT
from tests.end_to_end.conftest import TOKEN, clean_environment
from tests.servers import free_port

KUBERNETES = ROOT / "infra" / "kubernetes"
DOCKERFILE = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "KUBERNETES_DISCORD_SETUP.md").read_text(encoding="utf-8")
OVERLAYS = ("single-node", "firestore")
VERSIONS = ("1.36", "1.37")
ROLES = ("api", "announce", "relay")

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def kubectl() -> str:
    """Give kubectl; where there is none, skip on a person's machine, and fail in CI."""
    found = shutil.which("kubectl")
    if found is None:
        message = "kubectl is not installed (Debian: apt-get install kubernetes-client)"
        assert os.environ.get("CI") != "true", message
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def rendered(kubectl: str) -> dict[str, list[Manifest]]:
    """Give every overlay's manifests."""
    found = {}
    for overlay in OVERLAYS:
        path = KUBERNETES / "overlays" / overlay
        text = subprocess.run([kubectl, "kustomize", str(path)], capture_output=True, text=True, check=True).stdout
        found[overlay] = list(yaml.safe_load_all(text))
    return found


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    pods = [each["spec"]["template"]["spec"] for each in of_kind(manifests, "Deployment")]
    return {container["name"]: container for pod in pods for container in pod["containers"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(rendered: dict[str, list[Manifest]], overlay: str, version: str) -> None:
    """By the schemas of two current Kubernetes versions, strictly: no unknown field."""
    for manifest in rendered[overlay]:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_confined(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    """Not root, nothing to write but its volumes, probed, limited, with the secret by reference."""
    for deployment in of_kind(rendered[overlay], "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["terminationGracePeriodSeconds"] > 30
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"secretRef": {"name": "eai-agent-secrets"}} in container["envFrom"]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["path"] == "/health"
            assert container["resources"]["limits"]["memory"]
            assert ":latest" not in container["image"]


def test_announce_is_reached_from_the_relay_only(rendered: dict[str, list[Manifest]]) -> None:
    """Everything is closed, the API is open, and announce is open to one."""
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(rendered["firestore"], "NetworkPolicy")}
    assert policies["prompt-herald"].get("ingress", []) == []
    (rule,) = policies["prompt-herald-announce"]["ingress"]
    assert rule["from"] == [
        {
            "podSelector": {
                "matchLabels": {"app.kubernetes.io/name": "prompt-herald", "app.kubernetes.io/component": "relay"}
            }
        }
    ]
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in of_kind(rendered["firestore"], "Deployment")
    }
    assert labels["prompt-herald-relay"]["app.kubernetes.io/component"] == "relay"
    open_ports = [
        port["port"]
        for policy in of_kind(rendered["single-node"], "NetworkPolicy")
        for rule in policy["spec"].get("ingress") or []
        for port in rule["ports"]
    ]
    assert open_ports == [8080]


def test_one_pod_owns_the_file_and_replicas_have_a_budget(rendered: dict[str, list[Manifest]]) -> None:
    """SQLite: one replica, never two at once. Firestore: the API outlives a node's maintenance."""
    (deployment,) = of_kind(rendered["single-node"], "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (1, "Recreate")
    budgets = {
        each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for each in of_kind(rendered["firestore"], "PodDisruptionBudget")
    }
    several = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]
        for each in of_kind(rendered["firestore"], "Deployment")
        if each["spec"]["replicas"] > 1
    }
    assert budgets == several == {"api"}


def test_services_select_pods_that_listen(rendered: dict[str, list[Manifest]]) -> None:
    """Labels and port names meet."""
    for manifests in rendered.values():
        deployments = of_kind(manifests, "Deployment")
        for service in of_kind(manifests, "Service"):
            wanted = service["spec"]["selector"].items()
            pods = [
                each["spec"]["template"]
                for each in deployments
                if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
            ]
            names = {port["name"] for pod in pods for each in pod["spec"]["containers"] for port in each["ports"]}
            assert service["spec"]["ports"][0]["targetPort"] in names


def test_the_image_is_small_in_rights_and_has_what_its_entry_needs() -> None:
    """Its last stage builds nothing, and is not root; what it copies is there."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in last
    assert "pip install" not in last
    assert "HEALTHCHECK" in last
    assert all(":" in image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())


@contextmanager
def pod(environments: dict[str, dict[str, str]]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Run the image's entry once for each container, as its arguments and environment say."""
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[0])
    command = [sys.executable, *(part.replace("/app", str(ROOT)) for part in entry[1:])]
    running = {
        role: subprocess.Popen([*command, role], env=environment, text=True, start_new_session=True)
        for role, environment in environments.items()
    }
    try:
        yield running
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def single_node(rendered: dict[str, list[Manifest]], volume: Path, webhook: str) -> dict[str, dict[str, str]]:
    """Return each container's environment, as the manifest makes it.

    Three things differ here: where the volume is mounted, which ports are free, and that nothing leaves loopback.
    """
    manifests = rendered["single-node"]
    (config,) = of_kind(manifests, "ConfigMap")
    secret = {"DISCORD_WEBHOOK_URL": webhook, "ENVIRONMENT": "production", "UPLOAD_TOKENS": f'{{"ada": "{TOKEN}"}}'}
    ports = {str(number): str(free_port()) for number in (8080, 8081, 8082)}
    found = {}
    for role, container in containers(manifests).items():
        assert container["args"] == [role]
        named = {each["name"]: each["value"] for each in container["env"]}
        merged = clean_environment(HOST="127.0.0.1") | config["data"] | secret | named
        for name in ("STORE_URL", "PORT", "ANNOUNCE_URL"):
            if name in merged:
                text = merged[name].replace("/data/", f"{volume}/")
                merged[name] = re.sub(r"\b808[012]\b", lambda match: ports[match[0]], text)
        found[role] = merged
    return found


def until_healthy(environments: dict[str, dict[str, str]]) -> None:
    deadline = time.monotonic() + 30
    for environment in environments.values():
        while True:
            try:
                assert requests.get(f"http://127.0.0.1:{environment['PORT']}/health", timeout=2).ok
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline, "not healthy"
                time.sleep(0.05)


def upload(api: str, agent: str) -> str | None:
    """Upload; return the version's path, or None where no 201 came."""
    body = {"agent_type": agent, "prompt_content": "You are kind."}
    try:
        answer = requests.post(
            f"{api}/api/v1/unified-save", json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        )
    except requests.ConnectionError:
        return None
    return answer.headers["Location"] if answer.status_code == 201 else None


def test_from_an_upload_to_the_channel_and_a_stop_that_loses_nothing(
    rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    """SIGTERM comes with uploads in flight; each that was answered 201 is announced once, now or after the restart."""
    with DiscordStandIn() as stand_in:
        environments = single_node(rendered, tmp_path, stand_in.webhook_url)
        assert environments.keys() == set(ROLES)
        api = f"http://127.0.0.1:{environments['api']['PORT']}"
        with pod(environments) as processes:
            until_healthy(environments)
            first = upload(api, "first")
            assert first
            assert stand_in.wait_for(lambda messages: len(messages) == 1, 20)
            with ThreadPoolExecutor(8) as pool:
                saved = [pool.submit(upload, api, "storm") for _ in range(60)]
                time.sleep(0.15)
                for process in processes.values():
                    process.send_signal(signal.SIGTERM)
                accepted = [path for path in (each.result() for each in saved) if path]
            assert [process.wait(40) for process in processes.values()] == [0, 0, 0]
        with pod(environments):
            until_healthy(environments)
            wanted = {int(path.rpartition("/")[2]) for path in accepted}
            assert stand_in.wait_for(lambda messages: wanted <= set(_announced(messages)), 30)
        announced = _announced(stand_in.messages)
        assert len(announced) == len(set(announced))


def _announced(messages: list[dict[str, Any]]) -> list[int]:
    embeds = [embed for message in messages for embed in message["body"]["embeds"]]
    return [int(each["fields"][2]["value"]) for each in embeds if each["fields"][0]["value"] == "storm"]


def entry(role: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(KUBERNETES / "entrypoint.py"), role],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("role", "variables", "words"),
    [
        ("api", {}, "UPLOAD_TOKENS is missing: add it to the secret eai-agent-secrets"),
        ("announce", {"ENVIRONMENT": "production"}, "DISCORD_WEBHOOK_URL is missing"),
        ("relay", {}, "DISCORD_WEBHOOK_URL, ENVIRONMENT is missing"),
        ("api", {"UPLOAD_TOKENS": "{}", "STORE_URL": "sqlite:////proc/herald.db"}, "cannot be written to"),
        ("api", {"UPLOAD_TOKENS": "not json"}, "UPLOAD_TOKENS"),
        ("queen", {}, "api, announce or relay"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(role: str, variables: dict[str, str], words: str) -> None:
    """So that `kubectl logs` is enough."""
    result = entry(role, **variables)
    assert result.returncode != 0
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_second_pod_on_one_file_is_refused(tmp_path: Path) -> None:
    """With the other pod's name; when that one is gone, the file is free."""
    url = {"STORE_URL": f"sqlite:///{tmp_path}/herald.db", "UPLOAD_TOKENS": "{}"}
    (tmp_path / "herald.db.lock").write_text("prompt-herald-other-pod")
    with (tmp_path / "herald.db.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        refused = entry("api", **url)
    assert refused.returncode == 2
    assert "in use by pod 'prompt-herald-other-pod'" in refused.stderr
    freed = entry("api", **url, PORT="not-a-port")  # past the lock, functions-framework refuses the port
    assert "in use" not in freed.stderr
    assert "not-a-port" in freed.stderr


def test_the_containers_of_one_pod_share_the_file(rendered: dict[str, list[Manifest]], tmp_path: Path) -> None:
    """The lock lasts as long as any of them."""
    environments = single_node(rendered, tmp_path, "http://127.0.0.1:1/api/webhooks/1/fake-token")
    with pod(environments) as processes:
        until_healthy(environments)
        os.killpg(processes["api"].pid, signal.SIGKILL)
        with (tmp_path / "herald.db.lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        healthy = entry("health", PORT=environments["announce"]["PORT"])
        assert healthy.returncode == 0
    assert entry("health", PORT=environments["announce"]["PORT"]).returncode == 1


def test_the_documented_secret_command_makes_the_secret(kubectl: str, tmp_path: Path) -> None:
    """Run as the guide has it, up to the cluster: each key whole, whatever is in it."""
    documented = re.search(
        r"^(kubectl create secret generic eai-agent-secrets .+?) \\\n *\| kubectl", GUIDE, re.MULTILINE | re.DOTALL
    )
    assert documented
    script = documented[1].replace("\\\n", " ")
    values = {
        "DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/fake-token?thread_id=5",
        "ENVIRONMENT": "production",
        "UPLOAD_TOKENS": '{"alice": "fake token = with # odd $signs"}',
    }
    (tmp_path / "discord.env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    result = subprocess.run(
        ["sh", "-c", script.replace("kubectl", kubectl, 1)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    secret = yaml.safe_load(result.stdout)
    assert secret["metadata"]["name"] == "eai-agent-secrets"
    assert secret["data"].keys() == values.keys()
    decoded = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert decoded == values
