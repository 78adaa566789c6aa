"""The service as a Ray Serve application: replicas on cores or GPUs, scaled by the streams that
they have, replaced one by one.

Ray Serve places, watches, scales and replaces the replicas. The audio does not pass through it: its
websocket proxy buffers without a bound in both directions, so every replica listens itself, behind
the door.
"""

import asyncio
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from rtvc.engine.fleet.config import NAME, NAMESPACE, Fleet, ray_modules
from rtvc.engine.fleet.remote_vault import remote_vault, vault_name
from rtvc.engine.fleet.service import FleetService, Membership
from rtvc.engine.fleet.vault import Vault
from rtvc.engine.server.app import serving
from rtvc.errors import EngineError

Opener = Callable[[Membership], FleetService]
"""Makes a replica's service, in its process; takes seconds."""


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
        membership = Membership(
            serve.get_replica_context().replica_id.unique_id,
            ray.util.get_node_ip_address(),
            [remote_vault(index) for index in range(fleet.vaults)],
            every=fleet.every_s,
            spare=fleet.spare,
        )
        self.service = service = await asyncio.to_thread(opener, membership)
        service.proxies |= {*fleet.proxies, membership.host}
        self._stack = AsyncExitStack()
        service.port = await self._stack.enter_async_context(
            serving(service, membership.host, 0, page=fleet.page)
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `by_streams` decides by."""
        return {"streams": len(self.service.sessions), "places": self.service.most}

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


def needed(streams: Sequence[float], places: Sequence[float], share: float) -> int:
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
        return (needed(streams, places, self.share) if places else context.target_num_replicas), {}


PROMPT = {"RAY_worker_niceness": "0"}
"""Ray runs what it starts at nice 15, behind every other program of the machine, which is no place
for real time."""


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
        **PROMPT,
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


def deploy(opener: Opener, fleet: Fleet, environment: dict[str, str] | None = None) -> Vault:
    """Runs the application on the Ray cluster that this process is connected to, or updates it
    there, replica by replica.

    Returns:
        the vault that knows the replicas.
    """
    ray, serve = ray_modules()
    for index in range(fleet.vaults):
        options = {
            "name": vault_name(index),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "runtime_env": {"env_vars": PROMPT},
        }
        ray.remote(Vault).options(
            **options, num_cpus=0, max_restarts=-1, max_concurrency=10_000
        ).remote()
    serve.start(proxy_location="Disabled")
    serve.run(application(opener, fleet, environment), name=NAME, route_prefix=None)
    return remote_vault(0)


def remove(fleet: Fleet) -> None:
    """Ends the application and its vaults on the cluster that this process is connected to."""
    ray, serve = ray_modules()
    serve.delete(NAME)
    for index in range(fleet.vaults):
        ray.kill(ray.get_actor(vault_name(index), namespace=NAMESPACE))
