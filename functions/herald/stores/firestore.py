"""VersionStore and Ledger in Firestore.

    agents/{agent}                                         head: the latest number
    agents/{agent}/versions/{000042}                       the record; creating it is the event
    agents/{agent}/versions/{000042}/deliveries/{channel}  the ledger
    agents/{agent}/contents/{000042}                       the full prompt and config
    idempotency_keys/{hash}                                removed by Firestore's own TTL on `expires_at`

An announcement costs two round trips a channel: `create` takes the claim, one batch settles a whole message. The
fence of a claim is the document's update time: a settlement is conditional on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from google.api_core import exceptions as api
from google.api_core.datetime_helpers import DatetimeWithNanoseconds
from google.api_core.retry import Retry, if_exception_type
from google.auth.exceptions import GoogleAuthError
from google.cloud import firestore
from google.cloud.firestore_v1.base_query import FieldFilter

from herald import records
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

TIMEOUT_SECONDS = 10.0
CONTENTION_SECONDS = 30.0
QUEUES = 64
_RETRY = Retry(
    predicate=if_exception_type(api.ServiceUnavailable, api.InternalServerError),
    initial=0.1,
    maximum=1.0,
    timeout=TIMEOUT_SECONDS,
)
# Somebody else wrote between our read and our commit.
_CONTENDED = Retry(
    predicate=if_exception_type(api.FailedPrecondition, api.AlreadyExists, api.Aborted),
    initial=0.02,
    maximum=1.0,
    timeout=CONTENTION_SECONDS,
)
_CALL: dict[str, Any] = {"retry": _RETRY, "timeout": TIMEOUT_SECONDS}
_CREATED = ("created_at", "__name__")
_UPDATED = ("updated_at", "__name__")
_REOPENABLE = {Status.FAILED.value, Status.SUPPRESSED.value}


class FirestoreStore:
    """Implements VersionStore and Ledger."""

    def __init__(self, project: str | None, database: str | None) -> None:
        """Name project and database (None: the environment's, and `(default)`); connects at the first use."""
        self._project, self._database = project, database
        self._opened: firestore.Client | None = None
        self._lock = Lock()
        self._queues = [Lock() for _ in range(QUEUES)]

    # VersionStore

    def save(self, upload: Upload, key: IdempotencyKey | None) -> PromptVersion:
        """Write the upload under its number, in one atomic commit; see VersionStore.save.

        Optimistic: the commit is conditional on what was read, and tried again when somebody was faster. Uploads to
        one agent within one instance queue here, so that they do not race each other.
        """
        with self._translated(), self._queues[hash(upload.agent_type) % QUEUES]:
            version: PromptVersion = _CONTENDED(self._try_to_save)(upload, key)
            return version

    def _try_to_save(self, upload: Upload, key: IdempotencyKey | None) -> PromptVersion:
        head = self._agent(upload.agent_type)
        known = self._db.collection("idempotency_keys").document(key.id if key else "none")
        found = {each.reference.path: each for each in self._db.get_all([head, known] if key else [head], **_CALL)}
        batch = self._db.batch()
        if key is not None and (seen := self._seen(found[known.path], key, upload.created_at)):
            return seen
        version = upload.version((found[head.path].to_dict() or {}).get("latest_version", 0) + 1)
        if key is not None:
            made = {"agent_type": upload.agent_type, "number": version.version_number}
            self._write(batch, found[known.path], made | key.model_dump(exclude={"id"}))
        changed = {"latest_version": version.version_number, "content_sha256": upload.content.digest}
        changed |= {"agent_type": upload.agent_type, "updated_at": upload.created_at}
        self._write(batch, found[head.path], changed)
        batch.create(self._version(version.key), version.model_dump() | {"change_type": version.change_type.value})
        batch.create(self._content(version.key), upload.content.model_dump())
        batch.commit(**_CALL)
        return version

    def _seen(self, known: Any, key: IdempotencyKey, now: datetime) -> PromptVersion | None:
        """Return the version that this key made, unless it is out of date."""
        fields = known.to_dict()
        if not fields or fields["expires_at"] <= now:
            return None
        if fields["body_sha256"] != key.body_sha256:
            message = "This Idempotency-Key was used before with another body; use a new key for a new upload."
            raise IdempotencyConflict(message)
        return _record(self._version(VersionKey(fields["agent_type"], fields["number"])).get(**_CALL))

    def _write(self, batch: Any, snapshot: Any, fields: dict[str, Any]) -> None:
        """Write a document that nobody else has written since it was read."""
        if snapshot.exists:
            unchanged = self._db.write_option(last_update_time=snapshot.update_time)
            batch.update(snapshot.reference, fields, option=unchanged)
        else:
            batch.create(snapshot.reference, fields)

    def agents(self) -> list[AgentHead]:
        """Return every agent, by name."""
        with self._translated():
            return [AgentHead(**(each.to_dict() or {})) for each in self._db.collection("agents").stream(**_CALL)]

    def versions(self, agent_type: str, limit: int, before: int | None) -> list[PromptVersion]:
        """Return up to `limit` versions with numbers under `before`, newest first."""
        query = self._agent(agent_type).collection("versions").order_by("version_number", direction="DESCENDING")
        if before is not None:
            query = query.where(filter=FieldFilter("version_number", "<", before))
        return self._records(query, limit)

    def version(self, key: VersionKey) -> PromptVersion | None:
        """Return one version record, or None."""
        with self._translated():
            return _record(self._version(key).get(**_CALL))

    def latest(self, agent_type: str) -> PromptVersion | None:
        """Return the agent's newest version record, or None."""
        return next(iter(self.versions(agent_type, 1, None)), None)

    def content(self, key: VersionKey) -> Content | None:
        """Return one version's full prompt and config, or None."""
        with self._translated():
            found = self._content(key).get(**_CALL).to_dict()
        return None if found is None else Content(**found)

    def unannounced(self, until: datetime, limit: int, after: PromptVersion | None) -> list[PromptVersion]:
        """Return unannounced versions, oldest first; see VersionStore.unannounced."""
        query = (
            self._db.collection_group("versions")
            .where(filter=FieldFilter("announced", "==", value=False))
            .where(filter=FieldFilter("created_at", "<=", until))
            .order_by("created_at")
            .order_by("__name__")
        )
        if after is not None:
            query = query.start_after(dict(zip(_CREATED, (after.created_at, self._version(after.key)), strict=True)))
        return self._records(query, limit)

    def mark_announced(self, key: VersionKey) -> None:
        """Mark a version whose channels are all final; one that is not in the store needs no mark."""
        with self._translated():
            try:
                self._version(key).update({"announced": True}, **_CALL)
            except api.NotFound as error:
                _refuse_missing_database(error)

    # Ledger

    def claim(self, key: VersionKey, channel: str, now: datetime, lease: timedelta) -> Claim | Taken:
        """Take the right to deliver, in one conditional write; see Ledger.claim."""
        delivery = self._delivery(key, channel)
        fields = {"status": Status.CLAIMED.value, "updated_at": now, "lease_until": now + lease}
        whole = {"agent_type": key.agent_type, "version_number": key.number, "channel": channel, "attempts": 0}
        with self._translated():
            try:
                return _claim(key, channel, delivery.create(whole | fields, **_CALL).update_time)
            except api.AlreadyExists:
                return self._claim_again(key, channel, fields)

    def _claim_again(self, key: VersionKey, channel: str, fields: dict[str, Any]) -> Claim | Taken:
        """Take a delivery that is there already, if it is free; the write fails if anybody was faster."""
        delivery = self._delivery(key, channel)
        snapshot = delivery.get(**_CALL)
        known, now = snapshot.to_dict() or {}, fields["updated_at"]
        if known.get("status") not in {Status.CLAIMED.value, Status.RELEASED.value}:
            return Taken.FINAL
        unchanged = self._db.write_option(last_update_time=snapshot.update_time)
        try:
            if known["status"] == Status.CLAIMED and known["updated_at"] > now:  # the clock jumped back
                delivery.update({"updated_at": now, "lease_until": fields["lease_until"]}, option=unchanged, **_CALL)
            elif known["status"] == Status.RELEASED or known["lease_until"] <= now:
                return _claim(key, channel, delivery.update(fields, option=unchanged, **_CALL).update_time)
        except api.FailedPrecondition as error:
            _refuse_missing_index(error)
        return Taken.HELD

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Write outcomes in one batch; see Ledger.settle."""
        with self._translated():
            try:
                self._commit(settlements, now)
            except (api.FailedPrecondition, api.NotFound) as error:
                _refuse_missing_database(error)
                self._settle_one_by_one(settlements, now)

    def _settle_one_by_one(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Leave out what was taken over, and the marks of versions that are not in the store."""
        for settlement in settlements:
            for attempt in (settlement, settlement.model_copy(update={"concludes": False})):
                try:
                    self._commit([attempt], now)
                    break
                except (api.FailedPrecondition, api.NotFound):
                    continue

    def _commit(self, settlements: Sequence[Settlement], now: datetime) -> None:
        batch = self._db.batch()
        for claim, outcome, concludes in ((each.claim, each.outcome, each.concludes) for each in settlements):
            fields = {**outcome.model_dump(), "updated_at": now, "attempts": firestore.Increment(outcome.attempts)}
            fields |= {"status": outcome.status.value, "reason": outcome.reason and outcome.reason.value}
            claimed_at = DatetimeWithNanoseconds.from_rfc3339(claim.token)
            unchanged = self._db.write_option(last_update_time=claimed_at)
            batch.update(self._delivery(claim.key, claim.channel), fields, option=unchanged)
            if concludes:
                batch.update(self._version(claim.key), {"announced": True})
        batch.commit(**_CALL)

    def deliveries(self, key: VersionKey) -> list[Delivery]:
        """Return the deliveries of one version, by channel."""
        with self._translated():
            return [_delivery(each) for each in self._version(key).collection("deliveries").stream(**_CALL)]

    def deliveries_in(
        self, status: Status, limit: int, before: Position | None = None, since: datetime | None = None
    ) -> list[Delivery]:
        """Return deliveries of one status, newest first; see Ledger.deliveries_in."""
        query = self._db.collection_group("deliveries").where(filter=FieldFilter("status", "==", status.value))
        if since is not None:
            query = query.where(filter=FieldFilter("updated_at", ">=", since))
        for name in _UPDATED:
            query = query.order_by(name, direction="DESCENDING")
        if before is not None:
            place = self._delivery(VersionKey(before.agent_type, before.version_number), before.channel)
            query = query.start_after(dict(zip(_UPDATED, (before.updated_at, place), strict=True)))
        with self._translated():
            return [_delivery(each) for each in query.limit(limit).stream(**_CALL)]

    def reopen(self, key: VersionKey, channel: str | None, now: datetime) -> list[str]:
        """Reopen failed and suppressed deliveries, in one transaction; see Ledger.reopen."""
        with self._translated():
            reopened: list[str] = firestore.transactional(self._reopen)(self._db.transaction(), key, channel, now)
            return reopened

    def _reopen(self, transaction: Any, key: VersionKey, channel: str | None, now: datetime) -> list[str]:
        version = self._version(key)
        found = [
            each
            for each in version.collection("deliveries").stream(transaction=transaction, **_CALL)
            if each.get("status") in _REOPENABLE and channel in {None, each.id}
        ]
        is_stored = found and version.get(transaction=transaction, **_CALL).exists
        for each in found:
            transaction.update(each.reference, {"status": Status.RELEASED.value, "updated_at": now})
        if is_stored:
            transaction.update(version, {"announced": False})
        return sorted(each.id for each in found)

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @property
    def _db(self) -> firestore.Client:
        with self._lock:
            if self._opened is None:
                self._opened = firestore.Client(project=self._project, database=self._database)
            return self._opened

    def _agent(self, agent_type: str) -> Any:
        return self._db.collection("agents").document(agent_type)

    def _version(self, key: VersionKey) -> Any:
        return self._db.document(key.path)

    def _content(self, key: VersionKey) -> Any:
        return self._agent(key.agent_type).collection("contents").document(f"{key.number:06d}")

    def _delivery(self, key: VersionKey, channel: str) -> Any:
        return self._version(key).collection("deliveries").document(channel)

    def _records(self, query: Any, limit: int) -> list[PromptVersion]:
        """Return up to `limit` versions of a query; documents whose names are no version's hide none behind them."""
        found: list[PromptVersion] = []
        with self._translated():
            while wanted := limit - len(found):
                page = list(query.limit(wanted).stream(**_CALL))
                found += [each for each in map(_record, page) if each is not None]
                if len(page) < wanted:
                    break
                query = query.start_after(page[-1])
        return found

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the SDK's errors into ours, once, each with what a person can do."""
        try:
            yield
        except (api.GoogleAPICallError, api.RetryError, GoogleAuthError, OSError) as error:
            raise StoreUnavailable(self._advice(error)) from error

    def _advice(self, error: Exception) -> str:
        where = f"Firestore database {self._database or '(default)'!r} of project {self._project!r}"
        match error:
            case GoogleAuthError() | OSError():
                todo = "there are no credentials: run as a service account, or `gcloud auth application-default login`"
            case api.NotFound():
                todo = "it does not exist: check STORE_URL, or create it"
            case api.PermissionDenied() | api.Unauthenticated():
                todo = "the service account may not use it: grant it roles/datastore.user"
            case api.FailedPrecondition() if "index" in str(error):
                todo = "an index is missing: apply terraform/gcp, which has them all"
            case api.Aborted():
                todo = "too many uploads to one agent at once; they come again"
            case _:
                todo = "it does not answer: check the network, and status.cloud.google.com"
        return f"{where}: {todo} ({type(error).__name__})."


def _claim(key: VersionKey, channel: str, update_time: Any) -> Claim:
    return Claim(key=key, channel=channel, token=update_time.rfc3339())


def _delivery(snapshot: Any) -> Delivery:
    fields = snapshot.to_dict()
    return Delivery(**fields | {"updated_at": _datetime(fields["updated_at"])})


def _record(snapshot: Any) -> PromptVersion | None:
    """Return the version of a document, or None where there is none, or one whose name is no version's."""
    if not snapshot.exists:
        return None
    try:
        key = VersionKey.from_path(snapshot.reference.path)
    except ValueError:
        return None
    return records.read(key, snapshot.to_dict(), snapshot.create_time)


def _datetime(value: datetime) -> datetime:
    return datetime.fromtimestamp(value.timestamp(), UTC)


def _refuse_missing_index(error: Exception) -> None:
    """Raise a failed precondition that no race explains."""
    if "index" in str(error):
        raise error


def _refuse_missing_database(error: Exception) -> None:
    """Raise a NotFound of the database itself; one of a document is handled."""
    if "database" in str(error) and "does not exist" in str(error):
        raise error
