"""Send again what failed or was suppressed.

    scripts/redeliver.py --failed --since 2h --dry-run
    scripts/redeliver.py --version eai/42 --now

Reopens final deliveries in the store that the environment names (STORE_URL). The next reconcile announces them, or
the relay; with --now it is done at once, from here, with this environment's webhook.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import _path  # noqa: F401  it makes herald importable
from herald import wiring
from herald.errors import HeraldError
from herald.model import Delivery, Position, Status, VersionKey

PAGE = 200
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_REOPENABLE = (Status.FAILED, Status.SUPPRESSED)


def main() -> int:
    """Reopen, report, and announce at once if asked to."""
    arguments = _arguments()
    try:
        wiring.check()
        chosen = [each for each in _chosen(arguments) if arguments.channel in {None, each.channel}]
        for each in chosen:
            print(f"{_key(each)}  {each.channel}  {each.status} ({each.reason})  {each.updated_at:%Y-%m-%d %H:%M} UTC")
        if not chosen:
            print("Nothing to send again: no delivery is failed or suppressed among those asked for.")
            return 1 if arguments.version else 0
        if arguments.dry_run:
            print(f"{len(chosen)} would be reopened; nothing was changed.")
            return 0
        reopened = _reopen(chosen)
        then = " and announced now …" if arguments.now else "; the next reconcile, or the relay, announces them."
        print(f"{reopened} reopened{then}", flush=True)
        return _announce() if arguments.now else 0
    except HeraldError as error:
        print(f"redeliver: {error}", file=sys.stderr)
        return 2


def _chosen(arguments: argparse.Namespace) -> Iterator[Delivery]:
    """Yield the deliveries asked for that can be reopened."""
    if arguments.version:
        found = wiring.store().deliveries(arguments.version)
        yield from (each for each in found if each.status in _REOPENABLE)
        return
    status = Status.FAILED if arguments.failed else Status.SUPPRESSED
    place: Position | None = None
    while page := wiring.store().deliveries_in(status, PAGE, place, arguments.since):
        yield from page
        place = page[-1].position


def _reopen(chosen: list[Delivery]) -> int:
    """Reopen each; one that somebody else has reopened meanwhile does not count."""
    now = datetime.now(UTC)
    return sum(len(wiring.store().reopen(_key(each), each.channel, now)) for each in chosen)


def _announce() -> int:
    summary = wiring.reconciler().run(after=0)
    print(f"Sent {summary.sent}, suppressed {summary.suppressed}, failed {summary.failed}, left {summary.left}.")
    return 0 if summary.sent and not summary.failed and not summary.left else 1


def _key(delivery: Delivery) -> VersionKey:
    return VersionKey(delivery.agent_type, delivery.version_number)


def _version(text: str) -> VersionKey:
    agent, _, number = text.partition("/")
    if not agent or not number.isdigit():
        message = "give it as AGENT/NUMBER, such as eai/42"
        raise argparse.ArgumentTypeError(message)
    return VersionKey(agent, int(number))


def _time(text: str) -> datetime:
    """Read `30m`, `2h`, `7d`, or a time in ISO 8601 (UTC where it names no zone)."""
    if ago := re.fullmatch(r"(\d+)([mhd])", text):
        return datetime.now(UTC) - int(ago[1]) * _UNITS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = "give 30m, 2h, 7d, or a time such as 2025-08-20T12:00"
        raise argparse.ArgumentTypeError(message) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--failed", action="store_true", help="everything that failed")
    which.add_argument("--suppressed", action="store_true", help="everything that was suppressed")
    which.add_argument("--version", type=_version, metavar="AGENT/NUMBER", help="one version, such as eai/42")
    parser.add_argument("--channel", help="on this channel only (default: every one)")
    parser.add_argument("--since", type=_time, metavar="TIME", help="settled since: 30m, 2h, 7d, or an ISO 8601 time")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be sent again")
    parser.add_argument("--now", action="store_true", help="announce at once, from here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
