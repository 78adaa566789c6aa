"""The offer of a call: posted to a server, which answers it."""

import contextlib
import http.client
import urllib.error
import urllib.request

from rtvc.clients.websocket.address import origin_of, websocket_address
from rtvc.engine.protocol.fields import CALL_PATH, PATH
from rtvc.engine.protocol.messages import Error
from rtvc.engine.protocol.refusals import Refusal
from rtvc.errors import ServiceError

ANSWER_S = 10.0
"""Within this time an offer is answered."""
LARGEST_ANSWER = 65_536


def post(url: str, offer: str, token: str | None = None) -> str:
    """The answer of a server to an offer.

    Raises:
        Refusal: it says no.
        ServiceError: it cannot be reached, or takes no calls.
    """
    address = websocket_address(url)
    page = address.replace("ws", "http", 1)
    target = page.removesuffix(PATH) + CALL_PATH if page.endswith(PATH) else page
    headers = {"Content-Type": "application/sdp", "Origin": origin_of(address)}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(target, offer.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            return str(response.read(LARGEST_ANSWER).decode())
    except urllib.error.HTTPError as error:
        said = error.read(4_096).decode("utf-8", "replace").strip()
        with contextlib.suppress(ValueError):
            raise Refusal.of(Error.model_validate_json(said)) from error
        raise ServiceError(f"{target} turned us away (HTTP {error.code}: {said[:200]})") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(
            f"{target} cannot be reached ({error}): is `rtvc serve --webrtc` running there?"
        ) from error
