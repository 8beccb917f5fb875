"""Measure the product: one table, kept as JSON. Ratios within this run are what counts; machines differ."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "functions")]

from tests.benchmarks import burst, cold, isolation, latency, store  # noqa: E402  after the path is set
from tests.benchmarks.rows import Row  # noqa: E402

SECTIONS: dict[str, Callable[[], Iterator[Row]]] = {
    "burst": burst.measure,
    "latency": latency.measure,
    "isolation": isolation.measure,
    "cold": cold.measure,
    "store": store.measure,
    "channel": burst.measure_with_channel_bucket,
}
LONG = {"channel"}
RESULTS = ROOT / ".local" / "bench.json"


def main() -> int:
    """Run the sections asked for; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--long", action="store_true", help=f"with {', '.join(LONG)}, which takes minutes")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - SECTIONS.keys():
        parser.error(f"there is no section {', '.join(sorted(unknown))}")
    logging.disable()  # the libraries that burst compares with tell of each refusal
    names = arguments.sections or [name for name in SECTIONS if arguments.long or name not in LONG]
    rows = [row for name in names for row in SECTIONS[name]()]
    Console(width=110).print(_table(rows))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    print(f"kept in {RESULTS.relative_to(ROOT)}")
    return 1 if any(row.met is False for row in rows) else 0


def _table(rows: list[Row]) -> Table:
    table = Table("section", "case", "measure")
    table.add_column("value", justify="right")
    for heading in ("target", ""):
        table.add_column(heading)
    for row in rows:
        mark = {None: "", True: "met", False: "[bold]missed[/bold]"}[row.met]
        table.add_row(row.section, row.case, row.measure, f"{row.value:g} {row.unit}", row.target, mark)
    return table


if __name__ == "__main__":
    sys.exit(main())
