"""Importing this makes `herald` and `infra` importable for a script, wherever it is run from."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

sys.path[:0] = [str(ROOT / "functions"), str(ROOT)]
