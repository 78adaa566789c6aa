"""A local Ray cluster with two replicas behind the door: one is killed, one is replaced, and no
client loses a sample."""

import asyncio
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from calling import noise
from serving import make_service

import rtvc
from rtvc.engine.fleet.app import ByStreams, application, deploy, needed, remove
from rtvc.engine.fleet.config import Fleet, parse_replicas
from rtvc.engine.fleet.haproxy import Door
from rtvc.engine.fleet.remote_vault import remote_vault
from rtvc.engine.fleet.run import LOCAL_CLUSTER

psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'rtvc-engine[ray]'")
FLEET = Fleet(least=2, most=2, cores=0.4, every_s=0.3, shutdown_s=15)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def begin_ray(attempts=3):
    """Starts Ray, which gives its own processes 30 s to come up: too little for a machine on which
    ten others compute."""
    for left in reversed(range(attempts)):
        try:
            ray.init(
                "local",
                num_cpus=2,
                log_to_driver=False,
                configure_logging=False,
                namespace="rtvc",
                _node_ip_address="127.0.0.1",
                **LOCAL_CLUSTER,
            )
            return
        except Exception as error:  # Ray raises nothing narrower
            ray.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The application on a cluster of its own; gives the vault and the opener's environment."""
    from fleet import open_fleet_service

    voices = tmp_path_factory.mktemp("voices")
    make_service(voices)  # writes the voices
    variables = {
        "FLEET_VOICES": str(voices),
        "PYTHONPATH": str(Path(__file__).parents[2] / "support"),
    }
    before = dict(os.environ)
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(Path(__file__).parents[2] / "support"),
    }
    begin_ray()
    try:
        vault = deploy(open_fleet_service, FLEET, variables)
        yield vault, open_fleet_service, variables
        remove(FLEET)
        ray.serve.shutdown()
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ |= before


async def speak(client, x, heard, enough):
    """Sends x at the pace of a microphone until it is enough, and hears what comes; gives how much
    was sent."""
    began, sent = time.perf_counter(), 0

    async def blocks():
        nonlocal sent
        for index in range(len(x) // 480):
            await asyncio.sleep(max(0.0, began + index / 50 - time.perf_counter()))
            if enough.is_set():
                return
            yield x[sent : sent + 480]
            sent += 480

    async for part in client.convert(blocks()):
        heard.append(part)
    return sent


async def two(vault):
    """The replicas, once there are two that take sessions."""
    async with asyncio.timeout(300):
        while True:
            found = [replica for replica in await vault.replicas() if not replica.draining]
            if len(found) == 2:
                return found
            await asyncio.sleep(0.1)


def pid_of(replica):
    """The process that listens on a replica's port."""
    return next(
        c.pid
        for c in psutil.net_connections("tcp")
        if c.laddr and c.laddr.port == replica.port and c.status == "LISTEN"
    )


async def led_to_both(vault, port, clients, stack):
    """So many conversations through the door, of which each replica has one. The door leads nobody
    to a replica before it asked it several times: until then all are at the other, and begin
    anew."""
    async with asyncio.timeout(300):
        while True:
            async with AsyncExitStack() as attempt:
                opened = [
                    await attempt.enter_async_context(
                        rtvc.clients.connect(
                            f"ws://127.0.0.1:{port}", "half", format="f32", window=4.0
                        )
                    )
                    for _ in range(clients)
                ]
                counts = [0]
                while sum(counts) != clients:  # those before may be counted still
                    await asyncio.sleep(0.2)
                    counts = [replica.sessions for replica in await two(vault)]
                if min(counts) >= 1:
                    stack.push_async_exit(attempt.pop_all())
                    return opened
            while sum(replica.sessions for replica in await two(vault)):
                await asyncio.sleep(0.2)  # until then they count against an address's share


async def conversations(vault, disturb, clients=4):
    """Several clients through the door while something happens, and a second longer; gives how
    often each had to resume."""
    port, enough = free_port(), asyncio.Event()
    async with Door("127.0.0.1", port, vault.replicas) as door, AsyncExitStack() as stack:
        await two(vault)
        while len(door.slots) < 2:
            await asyncio.sleep(0.1)
        xs, heard = (
            [noise(24_000 * 150, seed) for seed in range(clients)],
            [[] for _ in range(clients)],
        )
        opened = await led_to_both(vault, port, clients, stack)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(speak(*each, enough))
                for each in zip(opened, xs, heard, strict=True)
            ]
            await asyncio.sleep(1.0)
            await disturb()
            await asyncio.sleep(1.0)
            enough.set()
        for client, x, parts, task in zip(opened, xs, heard, tasks, strict=True):
            sent = task.result()
            np.testing.assert_allclose(np.concatenate(parts), 0.5 * x[:sent], atol=1e-6)
            assert (
                client.totals.samples_in == client.totals.samples_out == sent > 48_000
                and client.totals.dropped_ms == 0
            )
        return [client.link.resumed for client in opened]


@pytest.mark.slow
def test_a_killed_replica_costs_its_clients_no_sample_and_the_others_nothing(cluster):
    vault, *_ = cluster

    async def main():
        async def kill():
            victim = pid_of((await two(vault))[0])
            assert psutil.Process(victim).nice() == psutil.Process().nice()  # Ray's own is 15
            os.kill(victim, signal.SIGKILL)
            await asyncio.sleep(3.0)

        resumed = await conversations(vault, kill)
        assert 1 <= sum(count > 0 for count in resumed) < len(resumed), resumed

    asyncio.run(asyncio.wait_for(main(), 900))


@pytest.mark.slow
def test_a_rolling_update_cuts_no_call(cluster):
    _, opener, variables = cluster
    vault = remote_vault(0)

    async def main():
        before = {replica.name for replica in await two(vault)}

        async def update():
            fresh = application(opener, FLEET, variables | {"GENERATION": "2"})
            await asyncio.to_thread(ray.serve.run, fresh, name="rtvc", route_prefix=None)
            after = {replica.name for replica in await two(vault)}
            assert not before & after

        resumed = await conversations(vault, update)
        assert all(count >= 1 for count in resumed), resumed

    asyncio.run(asyncio.wait_for(main(), 900))


def test_the_door_answers_for_the_replicas_and_keeps_their_metrics_to_itself(cluster):
    vault, *_ = cluster

    async def main():
        port = free_port()
        async with Door("127.0.0.1", port, vault.replicas):
            replicas = await two(vault)
            await asyncio.sleep(1.0)

            def get(path, port=port, host="127.0.0.1"):
                with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=60) as answer:
                    return answer.status, answer.read()

            assert (await asyncio.to_thread(get, "/healthz"))[1] == b"ok\n"
            assert json.loads((await asyncio.to_thread(get, "/readyz"))[1])["limit"] == 8
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await asyncio.to_thread(get, "/metrics")
            assert (
                b"rtvc_sessions_limit 8"
                in (await asyncio.to_thread(get, "/metrics", replicas[0].port, replicas[0].host))[1]
            )

    asyncio.run(asyncio.wait_for(main(), 600))


def test_replicas_follow_the_streams():
    assert needed([5, 5], [8, 8], 0.7) == 2 and needed([6, 6], [8, 8], 0.7) == 3
    assert needed([0, 0], [8, 8], 0.7) == 0 and needed([1], [], 0.7) == 1

    measured = {"streams": {"a": 8.0, "b": 7.0}, "places": {"a": 8.0, "b": 8.0}}
    assert ByStreams(0.7)(SimpleNamespace(aggregated_metrics=measured))[0] == 3
    assert ByStreams(0.7)(SimpleNamespace(aggregated_metrics=None, target_num_replicas=3))[0] == 3


def test_an_application_that_scales(tmp_path):
    from fleet import open_fleet_service

    ready = application(open_fleet_service, Fleet(least=1, most=5, gpus=0.5, cores=2))
    deployment = ready._bound_deployment
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 5) and deployment.ray_actor_options[
        "num_gpus"
    ] == 0.5
    assert deployment.ray_actor_options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "2"
    assert scaling.policy.get_policy() is not None


def test_a_door_that_does_not_open():
    from rtvc.errors import ConfigError

    async def main():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(ConfigError, match="does not open"):
                async with Door("127.0.0.1", taken.getsockname()[1], lambda: None):
                    pass

    asyncio.run(main())


def test_the_command_line_says_what_it_wants(tmp_path):
    from typer.testing import CliRunner

    from rtvc.errors import ConfigError

    assert parse_replicas("3") == {"least": 3, "most": 3} and parse_replicas("2:8") == {
        "least": 2,
        "most": 8,
    }
    for bad in ("0", "4:2", "many", "2:", ":2", "1:2:3"):
        if bad == "2:":
            assert parse_replicas(bad) == {"least": 2, "most": 2}
            continue
        with pytest.raises(ConfigError, match="LEAST:MOST"):
            parse_replicas(bad)
    import typer

    from rtvc.engine.cli.serve import serve

    application = typer.Typer()
    application.command()(serve)
    found = CliRunner().invoke(application, ["--ray"])
    assert isinstance(found.exception, ConfigError) and "every machine of the cluster sees" in str(
        found.exception
    )


def test_a_vault_that_is_gone_is_an_error_and_not_a_hang(cluster):
    async def main():
        vault = remote_vault(99)
        with pytest.raises(ValueError, match="rtvc-vault-99"):
            await vault.replicas()

    asyncio.run(asyncio.wait_for(main(), 600))
