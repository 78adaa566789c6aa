"""The service as a Ray Serve application: replicas on cores or GPUs, scaled by the streams that
they have, replaced one by one.

Ray Serve places, watches, scales and replaces the replicas. The audio does not pass through it: its
websocket proxy buffers without a bound in both directions, so every replica listens itself, behind
the door.
"""

import asyncio
import functools
import math
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rtvc.engine.fleet.haproxy import Door
from rtvc.engine.fleet.service import MovingService, Shelf
from rtvc.engine.fleet.vault import Copy, Replica, Vault
from rtvc.engine.server.app import serving
from rtvc.engine.server.open import ServeConfig, open_service
from rtvc.errors import ConfigError, DependencyError, EngineError

NAME = "rtvc"
"""Of the application, its deployment and, with a number, its vaults."""
NAMESPACE = "rtvc"
CHUNK_MS = 25.0
"""Milliseconds a step where nobody says: the same everywhere, because a session goes on only where
chunks are equal."""
VAULT_S = 2.0
"""Seconds that a vault is given to answer."""

Opener = Callable[[], MovingService]


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


def ray_modules() -> tuple[Any, Any]:
    """`ray` and `ray.serve`.

    Raises:
        DependencyError: not installed.
    """
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise DependencyError("many machines need Ray: pip install 'rtvc-engine[ray]'") from error
    return ray, serve


class RayShelf:
    """A vault that is an actor; if it is gone, the next call looks for its successor."""

    def __init__(self, index: int) -> None:
        self.name = f"{NAME}-vault-{index}"
        self._actor: Any = None

    async def _call(self, method: str, *arguments: Any) -> Any:
        ray, _ = ray_modules()
        try:
            if self._actor is None:
                self._actor = ray.get_actor(self.name, namespace=NAMESPACE)
            async with asyncio.timeout(VAULT_S):
                return await getattr(self._actor, method).remote(*arguments)
        except Exception:
            self._actor = None
            raise

    async def save(self, owner: str, copies: Sequence[Copy]) -> list[str]:
        """As `Vault.save`."""
        return list(await self._call("save", owner, list(copies)))

    async def forget(self, owner: str, sessions: Sequence[str]) -> None:
        """As `Vault.forget`."""
        await self._call("forget", owner, list(sessions))

    async def claim(self, session: str, digest: bytes, by: str) -> bytes | None:
        """As `Vault.claim`."""
        found: bytes | None = await self._call("claim", session, digest, by)
        return found

    async def hand(self, owner: str, session: str, data: bytes | None) -> None:
        """As `Vault.hand`."""
        await self._call("hand", owner, session, data)

    async def beat(self, replica: Replica, wait: float = 0.25) -> list[str]:
        """As `Vault.beat`."""
        return list(await self._call("beat", replica, wait))

    async def leave(self, name: str) -> None:
        """As `Vault.leave`."""
        await self._call("leave", name)

    async def replicas(self) -> list[Replica]:
        """As `Vault.replicas`."""
        return list(await self._call("replicas"))


class RayReplica:
    """One replica: a server on a free port of its machine. Ray Serve makes it, asks how it is, and
    ends it.

    Args:
        opener: makes the service; takes seconds.
        fleet: how it is looked after.
    """

    async def __init__(self, opener: Opener, fleet: Fleet) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        ray, serve = ray_modules()
        sys.setswitchinterval(0.001)
        host = ray.util.get_node_ip_address()
        self.service = service = await asyncio.to_thread(opener)
        service.proxies |= {*fleet.proxies, host}
        shelves: list[Shelf] = [RayShelf(index) for index in range(fleet.vaults)]
        name = serve.get_replica_context().replica_id.unique_id
        service.settle(name, host, shelves, every=fleet.every_s, spare=fleet.spare)
        self._stack = AsyncExitStack()
        service.port = await self._stack.enter_async_context(
            serving(service, host, 0, page=fleet.page)
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `by_streams` decides by."""
        return {"streams": len(self.service.calls), "places": self.service.most}

    def check_health(self) -> None:
        """Ray Serve replaces a replica for which this fails.

        Raises:
            EngineError: the pool is not stepped any more.
        """
        if not self.service.healthy:
            raise EngineError(
                "the threads that sessions need do not work any more: this replica is of no"
                " more use"
            )

    async def __del__(self) -> None:
        service = getattr(self, "service", None)
        if service is not None and service.port:
            await service.hand_over()
            await self._stack.aclose()


def wanted(streams: Sequence[float], places: Sequence[float], share: float) -> int:
    """Replicas for so many streams, when a replica has so many places of which a share may be
    taken."""
    mean = sum(places) / len(places) if places else 0.0
    return math.ceil(sum(streams) / (mean * share)) if mean else 1


class ByStreams:
    """Ray Serve's autoscaling policy: by the streams that the replicas have, not by requests, of
    which there are none.

    Args:
        share: of the places that may be taken.
    """

    def __init__(self, share: float = 0.7) -> None:
        self.share = share

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        measured = context.aggregated_metrics or {}
        streams, places = (list(measured.get(name, {}).values()) for name in ("streams", "places"))
        return (wanted(streams, places, self.share) if places else context.target_num_replicas), {}


def application(opener: Opener, fleet: Fleet, environment: dict[str, str] | None = None) -> Any:
    """The application, for `serve.run`.

    Args:
        opener: makes a replica's service, in its process.
        fleet: how many and where.
        environment: variables of the replicas.
    """
    _, serve = ray_modules()
    scaling: dict[str, Any] = {"num_replicas": fleet.least}
    if fleet.most > fleet.least:
        policy = {"policy_function": ByStreams, "policy_kwargs": {"share": fleet.share}}
        config = {
            "min_replicas": fleet.least,
            "max_replicas": fleet.most,
            "upscale_delay_s": fleet.up_s,
            "downscale_delay_s": fleet.down_s,
        }
        scaling = {
            "autoscaling_config": {
                **config,
                "look_back_period_s": 2.0,
                "metrics_interval_s": 1.0,
                "policy": policy,
            }
        }
    variables = {
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": str(max(1, int(fleet.cores))),
        **(environment or {}),
    }
    deployment = serve.deployment(
        RayReplica,
        name=NAME,
        ray_actor_options={
            "num_cpus": fleet.cores,
            "num_gpus": fleet.gpus,
            "runtime_env": {"env_vars": variables},
        },
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=fleet.shutdown_s,
        graceful_shutdown_wait_loop_s=0.1,
        **scaling,
    )
    return deployment.bind(opener, fleet)


def deploy(opener: Opener, fleet: Fleet, environment: dict[str, str] | None = None) -> RayShelf:
    """Runs the application on the Ray cluster that this process is connected to, or updates it
    there, replica by replica.

    Returns:
        the vault that knows the replicas.
    """
    ray, serve = ray_modules()
    for index in range(fleet.vaults):
        options = {
            "name": f"{NAME}-vault-{index}",
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
        }
        ray.remote(Vault).options(
            **options, num_cpus=0, max_restarts=-1, max_concurrency=10_000
        ).remote()
    serve.start(proxy_location="Disabled")
    serve.run(application(opener, fleet, environment), name=NAME, route_prefix=None)
    return RayShelf(0)


def remove(fleet: Fleet) -> None:
    """Ends the application and its vaults on the cluster that this process is connected to."""
    ray, serve = ray_modules()
    serve.delete(NAME)
    for index in range(fleet.vaults):
        ray.kill(ray.get_actor(f"{NAME}-vault-{index}", namespace=NAMESPACE))


def parse_replicas(text: str) -> dict[str, int]:
    """`N` or `LEAST:MOST`, as settings of a `Fleet`.

    Raises:
        ConfigError: something else.
    """
    least, _, most = text.partition(":")
    if not (
        least.isdecimal() and (most or least).isdecimal() and 1 <= int(least) <= int(most or least)
    ):
        raise ConfigError(f"{text!r} replicas came, N or LEAST:MOST was wanted, as in 2:8")
    return {"least": int(least), "most": int(most or least)}


def open_moving(config: ServeConfig) -> MovingService:
    """A replica's service."""
    service = open_service(config, MovingService)
    assert isinstance(service, MovingService)
    return service


def run_fleet(
    config: ServeConfig,
    settings: dict[str, Any],
    host: str,
    port: int,
    *,
    address: str | None = None,
    tls: tuple[Path, Path] | None = None,
    opener: Callable[[ServeConfig], MovingService] = open_moving,
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
    """
    ray, serve = ray_modules()
    fleet = Fleet(**settings)
    config = config.model_copy(
        update={"voices": config.voices.resolve(), "chunk_ms": config.chunk_ms or CHUNK_MS}
    )
    local: dict[str, Any] = (
        {} if address else {"include_dashboard": False, "object_store_memory": 200 << 20}
    )
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
            asyncio.run(
                stay(door, f"{fleet.least} to {fleet.most} replicas\nlistening on {door.url}")
            )
        if address is None:
            remove(fleet)
            serve.shutdown()
    finally:
        ray.shutdown()


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])


async def stay(door: Door, words: str) -> None:
    """Keeps the door open until SIGTERM or SIGINT."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with door:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()
        await stop.wait()
