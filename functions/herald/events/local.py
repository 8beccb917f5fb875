"""The event of the embedded store: CloudEvents, `application/json`, data = the version record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from herald.errors import UndecodableEvent
from herald.model import PromptVersion, VersionKey

TYPE = "prompt-herald.version.created.v1"


def decode(attributes: Mapping[str, Any], data: Any) -> PromptVersion | VersionKey:
    """Return the version that the event carries, or its key where the data is empty.

    Raises UndecodableEvent, whose text holds no data.
    """
    try:
        key = VersionKey.from_path(str(attributes.get("subject")))
        if data is None or data in ({}, "", b""):
            return key
        version = PromptVersion.model_validate(data)
    except ValidationError as error:
        fields = ", ".join(sorted({str(item["loc"][0]) if item["loc"] else "data" for item in error.errors()}))
        message = f"the version record lacks, or has wrong: {fields}"
        raise UndecodableEvent(message) from None
    except ValueError as error:
        message = f"its subject {error}"
        raise UndecodableEvent(message) from None
    if version.key != key:
        message = f"its subject names {key}, its record {version.key}"
        raise UndecodableEvent(message)
    return version
