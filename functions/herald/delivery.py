"""The only outbound HTTP: one request, with timeouts; vendor errors translated; no secret in any text."""

from __future__ import annotations

from typing import Any

import requests

from herald.errors import Undelivered
from herald.model import Reason
from herald.ports import Answer, Request


class Courier:
    """Carries requests to one destination over one kept-alive connection."""

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        """Set both timeouts, in seconds. Nothing connects before the first request."""
        self._timeouts = (connect_timeout, read_timeout)
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "DiscordBot (prompt-herald, 1) requests"

    def post(self, request: Request) -> Answer:
        """Send one request, and return whatever was answered.

        Raises Undelivered where no answer came. Its cause is cut off on purpose: requests' own errors quote
        the URL, and the URL is the secret. Redirects are not followed: they would carry it elsewhere.
        """
        try:
            response = self._session.post(
                request.url.get_secret_value(), json=request.body, timeout=self._timeouts, allow_redirects=False
            )
        except requests.Timeout as error:
            raise Undelivered(Reason.TIMEOUT, f"no answer in time ({type(error).__name__})") from None
        except requests.RequestException as error:
            raise Undelivered(Reason.UNREACHABLE, f"no connection, or it broke ({type(error).__name__})") from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, _json_or_none(response))


def _json_or_none(response: requests.Response) -> Any:
    """Decode a JSON body; an edge server's HTML page is None."""
    try:
        return response.json()
    except ValueError:
        return None
