"""The manifests as kubectl renders them, and the image as its Dockerfile puts it together, without a cluster."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.servers import free_port

KUBERNETES = ROOT / "infra" / "kubernetes"
DOCKERFILE = (KUBERNETES / "Dockerfile").read_text(encoding="utf-8")
OVERLAYS = ("single-node", "firestore")
SECRET = "eai-agent-secrets"

Manifest = dict[str, Any]


def render(kubectl: str, overlay: str) -> list[Manifest]:
    """Return an overlay's manifests."""
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def containers(manifests: list[Manifest]) -> dict[str, Manifest]:
    pods = [each["spec"]["template"]["spec"] for each in of_kind(manifests, "Deployment")]
    return {container["name"]: container for pod in pods for container in pod["containers"]}


@dataclass(frozen=True)
class Image:
    """What the Dockerfile puts together, laid out in a folder instead of in `/`."""

    root: Path

    def command(self, role: str) -> list[str]:
        entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[0])
        return [str(Path(sys.executable).parent / entry[0]), *(f"{self.root}{part}" for part in entry[1:]), role]

    @property
    def environment(self) -> dict[str, str]:
        """Its ENV, and what every container has; nothing of this machine's."""
        (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE.rpartition("\nFROM ")[2], re.MULTILINE)
        named = dict(each.split("=", 1) for each in shlex.split(block.replace("\\\n", " ")))
        named["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        return named | {"HOME": "/proc/there-is-none", "TMPDIR": str(self.root / "tmp")}

    @classmethod
    def build(cls, root: Path) -> Image:
        """Copy what the Dockerfile copies, and nothing else: a module that it leaves out is missing here, too."""
        for line in re.findall(r"^COPY (?!--from)((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE):
            *sources, target = line.replace("\\\n", " ").split()
            for source in sources:
                to = Path(f"{root}{target}{Path(source).name if target.endswith('/') else ''}")
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, to)
        (root / "tmp").mkdir()
        return cls(root)


@contextmanager
def pods(
    image: Image, environments: dict[str, dict[str, str]], log: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run the image's entry once for each container, as its arguments and environment say; all log to one file."""
    with log.open("ab") as lines:
        running = {
            role: subprocess.Popen(
                image.command(role), env=environment, cwd=image.root / "app", stderr=lines, start_new_session=True
            )
            for role, environment in environments.items()
        }
    try:
        yield running
    finally:
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def deployed(
    image: Image, manifests: list[Manifest], volume: Path, secret: dict[str, str], **variables: str
) -> dict[str, dict[str, str]]:
    """Return each container's environment, as image and manifest make it.

    `secret`: what the secret holds; `variables`: what leads to an emulator. Three things differ here: where the volume
    is mounted, which ports are free (a Service's name is one of them), and that nothing leaves loopback.
    """
    (config,) = of_kind(manifests, "ConfigMap")
    sources = {"configMapRef": {config["metadata"]["name"]: config["data"]}, "secretRef": {SECRET: secret}}
    ports = {number: free_port() for number in (8080, 8081, 8082)}
    listening = {port["name"]: ports[port["containerPort"]] for port in _ports(manifests)}
    services = {
        f"http://{each['metadata']['name']}": f"http://127.0.0.1:{listening[each['spec']['ports'][0]['targetPort']]}"
        for each in of_kind(manifests, "Service")
    }
    found = {}
    for role, container in containers(manifests).items():
        assert container["args"] == [role]
        merged = image.environment | {"HOST": "127.0.0.1"} | variables
        for source in container["envFrom"]:
            ((kind, named),) = source.items()
            merged |= sources[kind][named["name"]]
        merged |= {each["name"]: each["value"] for each in container["env"]}
        merged["PORT"] = str(ports[int(merged["PORT"])])
        merged["STORE_URL"] = merged["STORE_URL"].replace("/data/", f"{volume}/")
        if "ANNOUNCE_URL" in merged:
            url = services.get(merged["ANNOUNCE_URL"], merged["ANNOUNCE_URL"])
            merged["ANNOUNCE_URL"] = url.replace(":8081", f":{ports[8081]}")
        found[role] = merged
    return found


def _ports(manifests: list[Manifest]) -> list[Manifest]:
    return [port for container in containers(manifests).values() for port in container["ports"]]
