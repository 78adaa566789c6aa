"""Replicas of one process that share a vault, without a cluster, and clients of theirs."""

import asyncio
import functools
import time
from contextlib import asynccontextmanager

from serving import make_service

from rtvc.engine.fleet.service import FleetService, Membership
from rtvc.engine.server.app import serving


class Reach:
    """A replica's way to the vault, which can break."""

    def __init__(self, vault):
        self.vault, self.broken = vault, False

    def __getattr__(self, name):
        async def call(*arguments):
            if self.broken:
                raise ConnectionError("the vault is out of reach")
            answer = await getattr(self.vault, name)(*arguments)
            if self.broken:
                raise ConnectionError("the vault's answer does not arrive")
            return answer

        return call


class Hand:
    """A clock that the test moves: what is stale does not hang on how busy the machine is."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def replica(folder, name, vault, *, every=0.2, spare=0, clock=None, **settings):
    reach = Reach(vault)
    membership = Membership(name, "127.0.0.1", [reach], every=every, spare=spare)
    kind = functools.partial(FleetService, membership=membership, wall=clock or time.time)
    service = make_service(folder, kind=kind, clock=clock or time.perf_counter, **settings)
    async with serving(service) as service.port:
        service.url, service.reach = f"ws://127.0.0.1:{service.port}/v1", reach
        yield service


def go(client, service):
    """The client's next connection leads elsewhere."""
    client.url = service.url
    client.origin = f"http://127.0.0.1:{service.port}"


async def heard(client, samples):
    async with asyncio.timeout(120):
        while sum(len(audio.samples) for audio in client.audio) < samples:
            await asyncio.sleep(0.005)
