"""requirements.txt: what every deployment installs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


def test_every_package_that_a_deployment_installs_is_pinned() -> None:
    """A deployment today and one next year install the same, down to what the dependencies bring along."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = _needed(map(Requirement, project["dependencies"]))
    assert needed - {canonicalize_name(pin.name) for pin in pins} == set(), "run `make lock`"


def _needed(wanted: Iterable[Requirement]) -> set[str]:
    """Return the names of all that these bring along here, themselves included."""
    found: set[tuple[str, frozenset[str]]] = set()
    left = list(wanted)
    while left:
        each = left.pop()
        key = (canonicalize_name(each.name), frozenset(each.extras))
        if key in found:
            continue
        found.add(key)
        brought = map(Requirement, metadata.requires(each.name) or [])
        extras = each.extras or {""}
        left += [one for one in brought if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)]
    return {name for name, _ in found}
