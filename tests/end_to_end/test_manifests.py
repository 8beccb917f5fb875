"""The manifests, the Dockerfile and the guide, as they stand."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from gunicorn.config import Config

from herald.lanes import RECORD_GRACE_SECONDS
from herald.settings import Settings
from infra.local.relay import CONCURRENCY, GRACE_SECONDS
from tests.conftest import ROOT
from tests.kubernetes import DOCKERFILE, OVERLAYS, SECRET, Image, Manifest, containers, of_kind

GUIDE = (ROOT / "docs" / "KUBERNETES_DISCORD_SETUP.md").read_text(encoding="utf-8")
VERSIONS = ("1.30", "1.36", "1.37")  # the oldest that the guide promises, and two current ones
GUNICORN_GRACE_SECONDS = Config().settings["graceful_timeout"].get()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(rendered: dict[str, list[Manifest]], overlay: str, version: str) -> None:
    """By the schemas of several Kubernetes versions, strictly: no unknown field."""
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
            has_secret = {"secretRef": {"name": SECRET}} in container["envFrom"]
            assert has_secret == (container["name"] != "relay")  # which sends nothing, and lets nobody in
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


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_stop_has_time_for_what_is_on_its_way(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    """The longest that announce holds a version ends before gunicorn's patience does, the relay's and the pod's."""
    (config,) = of_kind(rendered[overlay], "ConfigMap")
    request = Settings().discord_connect_timeout + Settings().discord_read_timeout
    longest = float(config["data"]["MAX_WAIT"]) + request + RECORD_GRACE_SECONDS
    assert longest < GUNICORN_GRACE_SECONDS <= GRACE_SECONDS
    for deployment in of_kind(rendered[overlay], "Deployment"):
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > GRACE_SECONDS + 10


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_probe_finds_a_thread_while_announce_holds_all_that_the_relay_brings(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    """Or else a Discord that hangs would have announce restarted, again and again."""
    (threads,) = [
        each["value"] for each in containers(rendered[overlay])["announce"]["env"] if each["name"] == "THREADS"
    ]
    assert int(threads) > CONCURRENCY + 3


def test_the_image_is_small_in_rights() -> None:
    """Its last stage builds nothing, and is not root; nothing in it floats."""
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in last
    assert "pip install" not in last
    assert "HEALTHCHECK" in last
    assert all(":" in image for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))


def test_the_documented_secret_command_makes_the_secret(kubectl: str, tmp_path: Path) -> None:
    """Run as the guide has it, up to the cluster: each key whole, whatever is in it."""
    (documented,) = [each for each in _commands(GUIDE) if each.startswith(f"kubectl create secret generic {SECRET} ")]
    script = documented.partition(" | ")[0]
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
    assert secret["metadata"]["name"] == SECRET
    assert secret["data"].keys() == values.keys()
    decoded = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert decoded == values


def test_every_command_of_the_guide_is_one_that_kubectl_knows(kubectl: str, image: Image) -> None:
    """With `--help`, it reads every flag, refuses those that it does not have, and does nothing."""
    commands = [part.strip() for each in _commands(GUIDE) for part in each.split(" | ") if "kubectl " in part]
    assert {command.split()[1] for command in commands} >= {"create", "apply", "rollout", "exec", "logs"}
    for command in commands:
        ours, _, inside = command.partition(" -- ")
        arguments = shlex.split(ours.rstrip("&"), comments=True)[1:]
        result = subprocess.run([kubectl, *arguments, "--help"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{command}: {result.stderr}"
        for script in re.findall(r"scripts/\w+\.py", inside):  # what it runs there is in the image
            assert (image.root / "app" / script).is_file(), command


def _commands(guide: str) -> list[str]:
    """Return the kubectl commands of a guide's shell blocks, each in one line."""
    found, left = [], ""
    for block in re.findall(r"^```sh\n(.*?)^```", guide, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            left += re.sub(r" +", " ", line)
            if left.count("'") % 2 == 0:  # what is quoted may go on in the next line
                found.append(left)
                left = ""
    return [command for command in found if command.startswith("kubectl ")]
