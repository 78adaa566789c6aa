"""Changes a session on a server from outside of it, with the secret that it was begun with."""

import asyncio
from pathlib import Path
from typing import Any

from rtvc.clients.control.speaking import stepped
from rtvc.clients.websocket.client import connect
from rtvc.engine.admission.access import read_token
from rtvc.errors import ConfigError

ELSEWHERE = ("voice", "pitch", "prosody", "bypass")
"""What is the server's to change; the rest is done where somebody listens."""


def change_session(
    url: str, token_file: Path | None, session_token_file: Path | None, asked: dict[str, Any]
) -> dict[str, Any]:
    """Carries out a `Change`; returns what holds in the session afterwards.

    Args:
        url: of the server.
        token_file: what it wants to see.
        session_token_file: the secret of the session.
        asked: fields of the change.

    Raises:
        ConfigError: no secret, or a field that is not the server's.
        Refusal: no such session, or no such voice.
        ServiceError: the server cannot be reached.
    """
    if session_token_file is None:
        raise ConfigError(
            "expected --session-token-file with --url, got none: it is the file that the session"
            " was started with"
        )
    if others := [name for name in asked if name not in ELSEWHERE]:
        raise ConfigError(
            f"expected some of {', '.join(ELSEWHERE)} for a session on a server, got"
            f" {', '.join(others)}: that is done where somebody listens"
        )
    token = None if token_file is None else read_token(token_file).get_secret_value()
    secret = read_token(session_token_file).get_secret_value()
    return asyncio.run(_change(url, token, secret, asked))


async def _change(
    url: str, token: str | None, secret: str, asked: dict[str, Any]
) -> dict[str, Any]:
    async with connect(url, token=token) as client:
        now = await client.control(secret)
        changes = dict(asked)
        if "pitch" in changes:
            changes["pitch"] = stepped(changes["pitch"], now.pitch)
        if (bypass := changes.pop("bypass", None)) is not None:
            on = now.wet != 0.0 if bypass == "toggle" else bypass
            changes["wet"] = 0.0 if on else 1.0
        state = await client.update(**changes) if changes else now
        stats = await client.stats()
        return (
            state.model_dump(include={"voice", "pitch", "prosody"})
            | stats.model_dump(exclude={"type"})
            | {"session": now.session, "bypass": state.wet == 0.0}
        )
