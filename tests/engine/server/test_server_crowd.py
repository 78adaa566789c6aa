"""Many clients, and clients that die: 32 at once, killed processes, stalled networks, a thousand
connections. The others go on."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from calling import Client, noise, refused

SERVER, CLIENTS = (
    str(Path(__file__).parents[2] / "support" / name)
    for name in ("serving.py", "calling_process.py")
)
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "PYTHONPATH": str(Path(__file__).parents[3]),
}


class Process:
    """A server of its own process, which may have so many open files."""

    def __init__(self, folder, files=None, **settings):
        self.log = (folder / "log").open("w+")
        limit = (
            None
            if files is None
            else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        )
        command = [sys.executable, SERVER, str(folder / "voices"), json.dumps(settings)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=ENVIRONMENT,
            preexec_fn=limit,
        )
        self.url = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def logged(self):
        self.log.flush()
        return Path(self.log.name).read_text()


def clients(url, seconds, count):
    """Clients in a process of their own."""
    command = [sys.executable, CLIENTS, url, str(seconds), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout.readline() == "speaking\n"
    return process


def results(process):
    found = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
    assert process.returncode == 0
    return found


def test_32_clients_get_every_sample_and_the_33rd_is_told_that_it_is_full(tmp_path):
    with Process(tmp_path, sessions=32) as server:
        crowd = clients(server.url, 4.0, 32)

        async def late():
            async with Client(server.url) as client:
                return await refused(client.start())

        error = asyncio.run(late())
        assert error.code.value == "full" and error.fatal and "try again later" in error.advice
        found = results(crowd)
        assert len(found) == 32 and all(
            client["exact"] and client["dropped_ms"] == 0 for client in found
        )
        worst = max(client["lag_p99_ms"] for client in found)
        print(
            f"32 clients: lag p99 {worst:.1f} ms at the worst client, p50"
            f" {np.median([client['lag_p50_ms'] for client in found]):.1f} ms"
        )
        assert worst > 37.5  # the delay of the model itself


@pytest.mark.slow
def test_a_killed_client_and_a_stalled_one_do_not_disturb_the_others(tmp_path):
    with Process(tmp_path, resume_s=1.0) as server:
        calm, victim, stalled = (
            clients(server.url, 6.0, 2),
            clients(server.url, 60.0, 2),
            clients(server.url, 6.0, 1),
        )
        os.kill(victim.pid, signal.SIGKILL)
        os.kill(stalled.pid, signal.SIGSTOP)
        time.sleep(5.0)
        os.kill(stalled.pid, signal.SIGCONT)
        found = [*results(calm), *results(stalled)]
        assert all(
            client["exact"] and client["dropped_ms"] == 0 for client in found
        )  # the stalled one has asked for every sample
        victim.communicate()
        server.process.terminate()
        server.process.wait(120)
        text = server.logged()
        assert (
            text.count("waits for its client") == 2
            and text.count("its client did not come back") == 2
        )
        assert "Traceback" not in text and server.process.returncode == 0


def test_a_client_whose_network_path_is_cut_resumes(tmp_path):
    """A relay between the two stands for the network: it passes nothing on for five seconds, then
    breaks."""

    async def main(url):
        port, silent = int(url.split(":")[2].split("/")[0]), asyncio.Event()

        async def relay(reader, writer):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)

            async def copy(source, sink):
                while data := await source.read(65_536):
                    while silent.is_set():
                        await asyncio.sleep(0.05)
                    sink.write(data)
                    await sink.drain()
                sink.close()

            paths.append((writer, there_writer))
            await asyncio.gather(
                copy(reader, there_writer), copy(there_reader, writer), return_exceptions=True
            )

        paths = []
        network = await asyncio.start_server(relay, "127.0.0.1", 0)
        x, between = noise(24_000 * 4), network.sockets[0].getsockname()[1]
        client = Client(url.replace(str(port), str(between)))
        client.origin = (
            url.replace("ws", "http", 1).removesuffix("/v1").replace(str(port), str(between))
        )
        await client.connect()
        await client.start()
        speaking = asyncio.create_task(client.speak(x[:48_000], block=2_400))
        await asyncio.sleep(0.02)
        silent.set()
        await asyncio.sleep(5.0)
        for ends in paths:
            for end in ends:
                end.transport.abort()
        silent.clear()
        await asyncio.gather(speaking, return_exceptions=True)
        while (
            client.side.outgoing.sequence < 20
        ):  # what could not be sent any more is kept for later
            at = 2_400 * client.side.outgoing.sequence
            client.side.audio(x[at : at + 2_400], 0)
        await client.resume()
        await client.speak(x[48_000:], block=2_400)
        await client.stop()
        np.testing.assert_array_equal(client.samples(), x)
        network.close()

    with Process(tmp_path) as server:
        asyncio.run(main(server.url))


@pytest.mark.slow
def test_a_thousand_connections_leave_nothing_behind(tmp_path):
    """Every way to leave in turn: politely, in the middle of a session, without a word, before
    saying hello."""

    async def visit(url, index):
        client = Client(url)
        if index % 4 == 3:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", int(url.split(":")[2].split("/")[0])
            )
            writer.write(b"GET /v1 HTTP/1.1\r\n" if index % 8 == 3 else b"\x16\x03\x01")
            writer.transport.abort()
            return
        await client.connect()
        await client.start()
        await client.speak(noise(1_200))
        if index % 4 == 0:
            await client.stop()
        if index % 4 == 2:
            client.lose()
        else:
            await client.close()

    async def visits(url, first, count):
        for index in range(first, first + count, 8):
            await asyncio.gather(*[visit(url, one) for one in range(index, index + 8)])
        await asyncio.sleep(0.6)

    def measured(process):
        return process.num_fds(), process.num_threads(), process.memory_info().rss / 1e6

    with Process(tmp_path, resume_s=0.1, sessions=32) as server:
        process = psutil.Process(server.process.pid)
        asyncio.run(visits(server.url, 0, 200))
        before = measured(process)
        asyncio.run(visits(server.url, 200, 1_000))
        after = measured(process)
        print(f"descriptors, threads, MB: {before} -> {after}")
        assert after[0] <= before[0] + 1 and after[1] <= before[1] and after[2] < before[2] + 4
        assert "Traceback" not in server.logged()


def test_sigterm_lets_a_session_end_first(tmp_path):
    with Process(tmp_path, drain_s=20.0) as server:
        speaking = clients(server.url, 2.0, 1)
        server.process.terminate()
        assert results(speaking)[0]["exact"]
        assert server.process.wait(120) == 0
