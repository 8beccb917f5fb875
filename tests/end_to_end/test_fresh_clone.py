"""What the README promises to a new user, done in a fresh clone with a bare environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What pip may need of the surroundings, and nothing of ours.
KEPT = ("PATH", "HOME", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "PIP_INDEX_URL", "PIP_CACHE_DIR", "SSL_CERT_FILE")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_make_demo_works_in_a_fresh_clone(tmp_path: Path) -> None:
    """It installs, announces the two samples, shows them, and exits 0."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    _bring_uncommitted_changes(clone)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        ["make", "demo", "ONCE=1"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    assert result.stdout.count("🚀 New Prompt Version Deployed") == 2
    assert "ready api=http://127.0.0.1:" in result.stdout
    assert result.stderr.count("Discord notification sent successfully") == 2


def _bring_uncommitted_changes(clone: Path) -> None:
    """Bring the work tree's state of every tracked file: a developer tests what is there, not the last commit."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
        else:
            (clone / name).unlink(missing_ok=True)
