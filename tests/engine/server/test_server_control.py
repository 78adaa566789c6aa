"""A session is changed from outside by whoever knows the secret that it was begun with."""

import asyncio
import json

import numpy as np
import pytest
from background import background
from calling import noise
from serving import served

from rtvc.cli import main
from rtvc.clients.websocket.client import connect
from rtvc.clients.websocket.refusal import Refusal

SECRET = "this-session-is-mine-alone"


def test_the_secret_changes_one_session_and_no_other(tmp_path):
    async def work():
        async with (
            served(tmp_path) as (_, url),
            connect(url, "one", control=SECRET) as mine,
            connect(url, "one", control="another-secret-of-length") as other,
            connect(url) as remote,
        ):
            now = await remote.control(SECRET)
            assert (now.voice, now.pitch, now.prosody, now.wet) == ("one", 0.0, 1.0, 1.0)
            assert now.session == mine.started.session
            found = await remote.update(voice="half", pitch=-2)
            assert (found.voice, found.pitch) == ("half", -2.0)
            x = noise(24_000)
            halves = []
            for client in (mine, other):
                parts = [block async for block in client.convert([x])]
                halves.append(np.abs(np.concatenate(parts)[6_000:]).max() / np.abs(x).max())
            assert halves == pytest.approx([0.5 * 2 ** (-2 / 12), 1.0], abs=0.01), (
                "the stand-in is as loud as it is high: audible, and there alone"
            )
            with pytest.raises(Refusal, match="over"):
                await remote.update(pitch=1)

    asyncio.run(work())


def test_guesses_are_refused_counted_and_slowed(tmp_path):
    async def work():
        async with served(tmp_path, failures_per_minute=2) as (_, url):
            async with connect(url, "one", control=SECRET), connect(url) as remote:
                with pytest.raises(Refusal, match="update"):
                    await remote.update(pitch=1)
                began = asyncio.get_running_loop().time()
                for _ in range(3):
                    with pytest.raises(Refusal, match="no session"):
                        await remote.control("guess-" + "x" * 20)
                assert asyncio.get_running_loop().time() - began > 1.0
                assert (await remote.control(SECRET)).voice == "one"
            async with connect(url, "one") as open_to_nobody, connect(url) as remote:
                assert open_to_nobody.started is not None
                with pytest.raises(Refusal, match="no session"):
                    await remote.control("nobody-gave-a-secret-here")

    asyncio.run(work())


def test_a_session_of_ones_own_comes_before_the_one_that_is_controlled(tmp_path):
    async def work():
        async with served(tmp_path) as (_, url), connect(url, "one", control=SECRET) as mine:
            async with connect(url) as remote:
                await remote.control(SECRET)
                await remote.start("half")
                assert (await remote.update(pitch=3)).voice == "half"
            assert (await mine.update()).pitch == 0.0

    asyncio.run(work())


def test_the_command_controls_a_session(tmp_path, capsys):
    token = tmp_path / "session"
    token.write_text(SECRET)
    with background(tmp_path / "voices") as (_, url):

        async def work():
            async with connect(url, "one", control=SECRET) as mine:

                def command(*words):
                    arguments = ["--url", url, "--session-token-file", str(token), "--json"]
                    assert main(["control", *words, *arguments]) == 0
                    return json.loads(capsys.readouterr().out)

                found = await asyncio.to_thread(command, "mix", "one:1", "half:3")
                assert "half" in found["voice"] and not found["bypass"]
                assert (await asyncio.to_thread(command, "pitch", "down"))["pitch"] == -1.0
                assert (await asyncio.to_thread(command, "bypass"))["bypass"]
                assert (await asyncio.to_thread(command, "status"))["load"] >= 0
                assert (await mine.update()).wet == 0.0

        asyncio.run(work())
    assert main(["control", "mute", "--url", url, "--session-token-file", str(token)]) == 2
    assert "where somebody listens" in " ".join(capsys.readouterr().err.split())
    assert main(["control", "pitch", "1", "--url", url]) == 2
