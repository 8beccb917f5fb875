"""The floor: what a function costs that does nothing, or one POST and no more."""

import os

import functions_framework
from cloudevents.http import CloudEvent


@functions_framework.cloud_event
def hello(_event: CloudEvent) -> None:
    """Do nothing."""


@functions_framework.cloud_event
def post(event: CloudEvent) -> None:
    """POST the event's data to the webhook, as the shortest handler would."""
    import requests  # noqa: PLC0415  hello must not pay for it

    requests.post(os.environ["BARE_URL"], json=event.get_data(), timeout=10).raise_for_status()
