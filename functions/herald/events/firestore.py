"""Firestore's document-created event, as Eventarc sends it: a protobuf, and a path among the attributes.

The contract: cloud.google.com/firestore/native/docs/extend-with-functions-2nd-gen, and the message
google.events.cloud.firestore.v1.DocumentEventData. The emulator sends the same bytes in base64.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from google.events.cloud.firestore import DocumentEventData
from google.protobuf.message import DecodeError

from herald import records
from herald.errors import UndecodableEvent
from herald.model import PromptVersion, VersionKey

TYPE = "google.cloud.firestore.document.v1.created"
# The first byte of every message that has a value (field 1, length-delimited); no base64 text begins with it.
_RAW = b"\n"


def decode(attributes: Mapping[str, Any], data: Any) -> PromptVersion | VersionKey:
    """Return the version of the document, or its key alone: a large document's data may be missing from its event.

    Raises UndecodableEvent.
    """
    try:
        key = VersionKey.from_path(str(attributes.get("document")))
    except ValueError as error:
        message = f"its document {error}"
        raise UndecodableEvent(message) from None
    if not data:
        return key
    document = _document(data)
    if not document.fields:
        return key
    fields = {name: _value(value) for name, value in document.fields.items()}
    return records.read(key, fields, document.create_time)


def _document(data: Any) -> Any:
    """Return the protobuf document that the event carries."""
    raw = data.encode("ascii", errors="replace") if isinstance(data, str) else data
    try:
        if not raw.startswith(_RAW):
            raw = base64.b64decode(raw, validate=True)
        return DocumentEventData.pb(DocumentEventData.deserialize(raw)).value
    except (AttributeError, binascii.Error, DecodeError, ValueError) as error:
        message = f"its data is no Firestore document ({type(error).__name__})"
        raise UndecodableEvent(message) from None


def _value(value: Any) -> Any:
    """Return the Python value of a scalar; what a version record has no use for is None."""
    kind = value.WhichOneof("value_type")
    if kind in {"string_value", "integer_value", "boolean_value", "double_value", "timestamp_value"}:
        return getattr(value, kind)
    return None
