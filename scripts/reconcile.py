"""Announce, once and now, the versions that no event has announced; print the summary as JSON.

Configured by the environment, as the functions are. Safe to run at any time, twice, and beside events.
Exit code 0 when nothing is left and nothing has failed.
"""

from __future__ import annotations

import argparse
import sys

import _path  # noqa: F401  it makes herald importable
from herald import wiring
from herald.errors import HeraldError


def main() -> int:
    """Run one reconcile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--older-than", type=float, metavar="SECONDS", help="only versions at least so old (default: RECONCILE_AFTER)"
    )
    arguments = parser.parse_args()
    try:
        wiring.check()
        summary = wiring.reconciler().run(arguments.older_than)
    except HeraldError as error:
        print(f"reconcile: {error}", file=sys.stderr)
        return 2
    print(summary.model_dump_json())
    return 0 if summary.complete and not summary.left and not summary.failed else 1


if __name__ == "__main__":
    sys.exit(main())
