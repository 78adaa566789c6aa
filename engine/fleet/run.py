"""What `rtvc serve --ray` does: an application on a cluster, and a door to it in this process."""

import asyncio
import functools
import json
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtvc.engine.fleet.app import deploy, remove
from rtvc.engine.fleet.config import NAMESPACE, Fleet, ray_modules
from rtvc.engine.fleet.haproxy import Door
from rtvc.engine.fleet.service import FleetService, Membership
from rtvc.engine.server.open import ServeConfig, open_as

CHUNK_MS = 25.0
"""Milliseconds a step where nobody says: the same everywhere, because a session goes on only where
chunks are equal."""

LOCAL_CLUSTER: dict[str, Any] = {
    "include_dashboard": False,
    "object_store_memory": 200 << 20,
    "_system_config": {"worker_niceness": 0},  # of what Ray itself starts, see `PROMPT`
}
"""How `ray.init` starts a cluster of this process's own."""


def open_replica(config: ServeConfig, membership: Membership) -> FleetService:
    """A replica's service."""
    return open_as(functools.partial(FleetService, membership=membership), config)


def run_fleet(
    config: ServeConfig,
    settings: dict[str, Any],
    host: str,
    port: int,
    *,
    address: str | None = None,
    tls: tuple[Path, Path] | None = None,
    opener: Callable[[ServeConfig, Membership], FleetService] = open_replica,
    as_json: bool = False,
) -> None:
    """What `rtvc serve --ray` does: the application on a Ray cluster, and a door to it in this
    process, until SIGTERM or SIGINT.

    Args:
        config: of every replica; without a chunk they step 25 ms, so that all are alike.
        settings: of the `Fleet`.
        host: of the door.
        port: of the door; 0 takes a free one.
        address: of a Ray cluster, which keeps the application afterwards; None starts one here,
            which ends with this process.
        tls: certificate chain and key, both PEM.
        opener: makes a replica's service, in its process.
        as_json: say the address as a line of JSON.
    """
    ray, serve = ray_modules()
    fleet = Fleet(**settings)
    config = config.model_copy(
        update={"voices": config.voices.resolve(), "chunk_ms": config.chunk_ms or CHUNK_MS}
    )
    local = {} if address else LOCAL_CLUSTER
    ray.init(address=address or "local", namespace=NAMESPACE, log_to_driver=False, **local)
    try:
        with tempfile.TemporaryDirectory(prefix="rtvc-tls-") as folder:
            certificate = Path(folder) / "both.pem" if tls else None
            if tls and certificate:
                certificate.touch(0o600)
                certificate.write_bytes(b"\n".join(path.read_bytes() for path in tls))
            door = Door(
                host,
                port or free_port(host),
                deploy(functools.partial(opener, config), fleet).replicas,
                certificate=certificate,
            )
            words = f"{fleet.least} to {fleet.most} replicas\nlistening on {door.url}"
            if as_json:
                words = json.dumps({"url": door.url, "replicas": [fleet.least, fleet.most]})
            asyncio.run(keep_open(door, words))
        if address is None:
            remove(fleet)
            serve.shutdown()
    finally:
        ray.shutdown()


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def keep_open(door: Door, words: str) -> None:
    """Keeps the door open until SIGTERM or SIGINT."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with door:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()
        await stop.wait()
