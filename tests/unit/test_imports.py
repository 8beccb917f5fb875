"""Rules about imports and the environment that import-linter cannot see."""

from __future__ import annotations

import ast
import subprocess
import sys

from tests.conftest import MAIN, ROOT

FUNCTIONS = ROOT / "functions"


def test_main_needs_wiring_and_errors_only() -> None:
    """Of ours: the entry points stay thin."""
    imported = set()
    for node in ast.walk(ast.parse(MAIN.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "herald":
            imported |= {alias.name for alias in node.names} if node.module == "herald" else {str(node.module)}
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "herald"}
    assert imported <= {"wiring", "errors", "herald.errors"}


def test_only_settings_reads_the_environment() -> None:
    """One place says which variables there are."""
    readers = [
        path.name
        for path in FUNCTIONS.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("os.environ", "getenv", "BaseSettings"))
    ]
    assert readers == ["settings.py"]


def test_the_functions_import_nothing_outside_their_folder() -> None:
    """It is what gets deployed, and nothing else; without an SDK of a cloud that was not chosen."""
    code = "import main, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=FUNCTIONS, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "herald.wiring" in loaded
    unwanted = {"infra", "scripts", "tests", "rich", "grpc", "boto3"}
    assert not [name for name in loaded if name.partition(".")[0] in unwanted or name.startswith("google.cloud.fire")]
