"""VersionStore and Ledger in one SQLite file: the embedded store of a single machine.

One connection a process, opened at first use (so after gunicorn's fork) and guarded by a lock: statements take
microseconds, and writers would queue for SQLite's one write lock anyway. Other processes share the file through
WAL. `synchronous=FULL`: what was answered 201 survives a power cut.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from herald.errors import IdempotencyConflict, StoreUnavailable
from herald.model import (
    AgentHead,
    Claim,
    Content,
    Delivery,
    IdempotencyKey,
    Position,
    PromptVersion,
    Settlement,
    Status,
    Taken,
    Upload,
    VersionKey,
)

_BUSY_SECONDS = 5.0
_BUSY_POLL_SECONDS = 0.01

# Times are seconds since the epoch.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS agents (
    agent_type TEXT PRIMARY KEY, latest_version INTEGER NOT NULL,
    content_sha256 TEXT NOT NULL, updated_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS versions (
    agent_type TEXT, number INTEGER, record TEXT NOT NULL, created_at REAL NOT NULL,
    announced INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (agent_type, number));
CREATE INDEX IF NOT EXISTS versions_unannounced ON versions (created_at, agent_type, number) WHERE announced = 0;
CREATE TABLE IF NOT EXISTS contents (
    agent_type TEXT, number INTEGER, prompt_content TEXT, config TEXT, PRIMARY KEY (agent_type, number));
CREATE TABLE IF NOT EXISTS deliveries (
    agent_type TEXT, number INTEGER, channel TEXT, status TEXT NOT NULL, reason TEXT, detail TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, message_id TEXT, updated_at REAL NOT NULL,
    token TEXT, lease_until REAL, PRIMARY KEY (agent_type, number, channel));
CREATE INDEX IF NOT EXISTS deliveries_by_status ON deliveries (status, updated_at, agent_type, number, channel);
CREATE TABLE IF NOT EXISTS idempotency_keys (
    id TEXT PRIMARY KEY, body_sha256 TEXT NOT NULL, agent_type TEXT NOT NULL, number INTEGER NOT NULL,
    expires_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS idempotency_keys_by_expiry ON idempotency_keys (expires_at);
"""


class SQLiteStore:
    """Implements VersionStore and Ledger."""

    def __init__(self, path: str) -> None:
        """Name the file; nothing is opened before the first use."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    # VersionStore

    def save(self, upload: Upload, key: IdempotencyKey | None) -> PromptVersion:
        """Write the upload under its number, in one transaction; see VersionStore.save."""
        with self._transaction() as db:
            if key is not None and (seen := self._seen(db, key, upload.created_at)):
                return seen
            row = db.execute("SELECT latest_version FROM agents WHERE agent_type = ?", (upload.agent_type,)).fetchone()
            version = upload.version(row["latest_version"] + 1 if row else 1)
            self._insert(db, upload, version)
            if key is not None:
                db.execute(
                    "INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?, ?)",
                    (key.id, key.body_sha256, *version.key, key.expires_at.timestamp()),
                )
            return version

    def agents(self) -> list[AgentHead]:
        """Return every agent, by name."""
        return [AgentHead(**row) for row in self._read("SELECT * FROM agents ORDER BY agent_type")]

    def versions(self, agent_type: str, limit: int, before: int | None) -> list[PromptVersion]:
        """Return up to `limit` versions with numbers under `before`, newest first."""
        rows = self._read(
            "SELECT record, announced FROM versions WHERE agent_type = ? AND number < ? ORDER BY number DESC LIMIT ?",
            (agent_type, before if before is not None else 2**62, limit),
        )
        return [_version(row) for row in rows]

    def version(self, key: VersionKey) -> PromptVersion | None:
        """Return one version record, or None."""
        rows = self._read("SELECT record, announced FROM versions WHERE agent_type = ? AND number = ?", key)
        return _version(rows[0]) if rows else None

    def latest(self, agent_type: str) -> PromptVersion | None:
        """Return the agent's newest version record, or None."""
        return next(iter(self.versions(agent_type, 1, None)), None)

    def content(self, key: VersionKey) -> Content | None:
        """Return one version's full prompt and config, or None."""
        rows = self._read("SELECT * FROM contents WHERE agent_type = ? AND number = ?", key)
        return Content(**rows[0]) if rows else None

    def unannounced(self, until: datetime, limit: int, after: PromptVersion | None) -> list[PromptVersion]:
        """Return unannounced versions, oldest first; see VersionStore.unannounced."""
        place = (after.created_at.timestamp(), *after.key) if after else (float("-inf"), "", 0)
        rows = self._read(
            """SELECT record, announced FROM versions
            WHERE announced = 0 AND created_at <= ? AND (created_at, agent_type, number) > (?, ?, ?)
            ORDER BY created_at, agent_type, number LIMIT ?""",
            (until.timestamp(), *place, limit),
        )
        return [_version(row) for row in rows]

    def mark_announced(self, key: VersionKey) -> None:
        """Mark a version whose channels are all final."""
        with self._transaction() as db:
            _mark_announced(db, key)

    # Ledger

    def claim(self, key: VersionKey, channel: str, now: datetime, lease: timedelta) -> Claim | Taken:
        """Take the right to deliver; see Ledger.claim."""
        claim = Claim(key=key, channel=channel, token=secrets.token_hex(8))
        at, until = now.timestamp(), (now + lease).timestamp()
        with self._transaction() as db:
            won = db.execute(
                """INSERT INTO deliveries (agent_type, number, channel, status, updated_at, token, lease_until)
                VALUES (?, ?, ?, 'claimed', ?, ?, ?)
                ON CONFLICT DO UPDATE SET status = 'claimed', updated_at = excluded.updated_at,
                    token = excluded.token, lease_until = excluded.lease_until
                WHERE status = 'released' OR (status = 'claimed' AND lease_until <= excluded.updated_at)
                RETURNING 1""",
                (*key, channel, at, claim.token, until),
            ).fetchone()
            if won:
                return claim
            # `updated_at` of a claimed row is when it was claimed; one in the future: the clock jumped back.
            held = db.execute(
                """UPDATE deliveries SET lease_until = iif(updated_at > ?, ?, lease_until),
                    updated_at = min(updated_at, ?)
                WHERE agent_type = ? AND number = ? AND channel = ? AND status = 'claimed' RETURNING 1""",
                (at, until, at, *key, channel),
            ).fetchone()
        return Taken.HELD if held else Taken.FINAL

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Write outcomes in one transaction; see Ledger.settle."""
        with self._transaction() as db:
            for claim, outcome, concludes in ((s.claim, s.outcome, s.concludes) for s in settlements):
                written = db.execute(
                    """UPDATE deliveries SET status = ?, reason = ?, detail = ?, message_id = ?,
                        attempts = attempts + ?, updated_at = ?, token = NULL, lease_until = NULL
                    WHERE agent_type = ? AND number = ? AND channel = ? AND token = ?""",
                    (
                        *(outcome.status, outcome.reason, outcome.detail, outcome.message_id, outcome.attempts),
                        *(now.timestamp(), *claim.key, claim.channel, claim.token),
                    ),
                ).rowcount
                if written and concludes:
                    _mark_announced(db, claim.key)

    def deliveries(self, key: VersionKey) -> list[Delivery]:
        """Return the deliveries of one version, by channel."""
        rows = self._read("SELECT * FROM deliveries WHERE agent_type = ? AND number = ? ORDER BY channel", key)
        return [Delivery(version_number=row["number"], **row) for row in rows]

    def deliveries_in(
        self, status: Status, limit: int, before: Position | None = None, since: datetime | None = None
    ) -> list[Delivery]:
        """Return deliveries of one status, newest first; see Ledger.deliveries_in."""
        place = (before.updated_at.timestamp(), *before[1:]) if before else (float("inf"), "", 0, "")
        rows = self._read(
            """SELECT * FROM deliveries
            WHERE status = ? AND updated_at >= ? AND (updated_at, agent_type, number, channel) < (?, ?, ?, ?)
            ORDER BY updated_at DESC, agent_type DESC, number DESC, channel DESC LIMIT ?""",
            (status, since.timestamp() if since else float("-inf"), *place, limit),
        )
        return [Delivery(version_number=row["number"], **row) for row in rows]

    def reopen(self, key: VersionKey, channel: str | None, now: datetime) -> list[str]:
        """Reopen failed and suppressed deliveries, in one transaction; see Ledger.reopen."""
        with self._transaction() as db:
            rows = db.execute(
                """UPDATE deliveries SET status = 'released', updated_at = ?
                WHERE agent_type = ? AND number = ? AND channel = coalesce(?, channel)
                    AND status IN ('failed', 'suppressed')
                RETURNING channel""",
                (now.timestamp(), *key, channel),
            ).fetchall()
            if rows:
                db.execute("UPDATE versions SET announced = 0 WHERE agent_type = ? AND number = ?", key)
        return sorted(row["channel"] for row in rows)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @staticmethod
    def _seen(db: sqlite3.Connection, key: IdempotencyKey, now: datetime) -> PromptVersion | None:
        """Return the version that this key made; forget the keys that are out of date."""
        db.execute("DELETE FROM idempotency_keys WHERE expires_at <= ?", (now.timestamp(),))
        row = db.execute(
            """SELECT body_sha256, record, announced FROM idempotency_keys JOIN versions USING (agent_type, number)
            WHERE id = ?""",
            (key.id,),
        ).fetchone()
        if row and row["body_sha256"] != key.body_sha256:
            message = "This Idempotency-Key was used before with another body; use a new key for a new upload."
            raise IdempotencyConflict(message)
        return _version(row) if row else None

    @staticmethod
    def _insert(db: sqlite3.Connection, upload: Upload, version: PromptVersion) -> None:
        record, at = version.model_dump_json(), version.created_at.timestamp()
        content = upload.content
        db.execute("INSERT OR REPLACE INTO agents VALUES (?, ?, ?, ?)", (*version.key, content.digest, at))
        db.execute(
            "INSERT INTO versions (agent_type, number, record, created_at) VALUES (?, ?, ?, ?)",
            (*version.key, record, at),
        )
        db.execute("INSERT INTO contents VALUES (?, ?, ?, ?)", (*version.key, content.prompt_content, content.config))

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock, _translated():
            return self._open().execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside a write transaction: committed whole, or rolled back."""
        with self._lock, _translated():
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk may have rolled it back already
                    db.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                db.row_factory = sqlite3.Row
                _use_wal(db)
                db.execute("PRAGMA synchronous = FULL")
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            except BaseException:
                db.close()
                raise
            self._connection = db
        return self._connection


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait by itself where another process does the same just now."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_BUSY_POLL_SECONDS)
        else:
            return


@contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's errors into ours, once."""
    try:
        yield
    except sqlite3.Error as error:
        message = f"The store did not do it ({error}); nothing was written. Check the disk and the file of STORE_URL."
        raise StoreUnavailable(message) from error


def _version(row: sqlite3.Row) -> PromptVersion:
    return PromptVersion(**{**json.loads(row["record"]), "announced": bool(row["announced"])})


def _mark_announced(db: sqlite3.Connection, key: VersionKey) -> None:
    db.execute("UPDATE versions SET announced = 1 WHERE agent_type = ? AND number = ? AND announced = 0", key)
