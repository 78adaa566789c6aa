"""How many replicas a fleet has, where, and how they are looked after."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rtvc.errors import ConfigError, needs_extra

NAME = "rtvc"
"""Of the application, its deployment and, with a number, its vaults."""
NAMESPACE = "rtvc"


class Fleet(BaseModel):
    """How many replicas, where, and how they are looked after.

    Attributes:
        least: replicas at any time.
        most: replicas at any time.
        cores: of the CPU for one replica.
        gpus: for one replica; a share lets several sit on one.
        vaults: actors that keep sessions; one serves some hundred streams.
        every_s: seconds between two saves of a session.
        spare: places a replica that only sessions of other replicas get; None takes one in eight.
        share: of the places that may be taken before replicas are added: what is free must hold the
            sessions of one that dies.
        up_s: seconds of need before replicas are added.
        down_s: seconds without need before replicas are removed.
        shutdown_s: seconds that a replica is given to hand over its sessions.
        proxies: addresses of doors, whose X-Forwarded-For counts.
        page: folder of the browser page, the same on every machine; None serves none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: int = Field(default=2, ge=1)
    most: int = Field(default=2, ge=1)
    cores: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    vaults: int = Field(default=1, ge=1)
    every_s: float = Field(default=1.0, gt=0)
    spare: int | None = Field(default=None, ge=0)
    share: float = Field(default=0.7, gt=0, le=1)
    up_s: float = Field(default=5.0, ge=0)
    down_s: float = Field(default=300.0, ge=0)
    shutdown_s: float = Field(default=20.0, gt=0)
    proxies: Sequence[str] = ("127.0.0.1", "::1")
    page: Path | None = None


def parse_replicas(text: str) -> dict[str, int]:
    """`N` or `LEAST:MOST`, as settings of a `Fleet`.

    Raises:
        ConfigError: something else.
    """
    least, _, most = text.partition(":")
    if not (
        least.isdecimal() and (most or least).isdecimal() and 1 <= int(least) <= int(most or least)
    ):
        raise ConfigError(f"expected N or LEAST:MOST replicas, as in 2:8, got {text!r}")
    return {"least": int(least), "most": int(most or least)}


def ray_modules() -> tuple[Any, Any]:
    """`ray` and `ray.serve`.

    Raises:
        DependencyError: not installed.
    """
    with needs_extra("ray", "many machines need Ray"):
        import ray
        from ray import serve
    return ray, serve
