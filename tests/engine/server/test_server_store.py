"""The store of voices: several servers on one folder, many voices, bad moments of the machine,
voices of other weights."""

import asyncio
import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from calling import Client, refused
from serving import gain_voice, served

from rtvc.engine.protocol.fields import LARGEST_REPLY, Code
from rtvc.engine.protocol.messages import ListVoices, VoiceList
from rtvc.engine.protocol.refusals import Refusal as ServersRefusal
from rtvc.engine.voices import store as module
from rtvc.engine.voices.store import VoiceStore
from rtvc.voices.usable import usable
from rtvc.voices.voice import Voice


def fitted(weights, fine=3.0, space=None):
    source = {"space": space} if space else {}
    return Voice(
        torch.zeros(128),
        torch.zeros(128),
        "fitted",
        source | ({"fit": {"weights": weights}} if weights else {}),
        torch.full((8,), fine),
    )


def code(work, *arguments):
    with pytest.raises(ServersRefusal) as caught:
        work(*arguments)
    return caught.value.error.code


def add_all(folder, gain, count, barrier, won):
    """What one of several servers does: adds the same names as the others, at the same time."""
    store = VoiceStore(Path(folder), most=10_000)
    voice = gain_voice(gain)
    for index in range(count):
        barrier.wait(120)
        try:
            store.add(f"name {index}", voice)
            won.put((index, gain))
        except ServersRefusal as refusal:
            assert refusal.error.code is Code.NAME_TAKEN


@pytest.mark.parametrize("links", [True, False])
def test_a_name_is_stored_once_by_however_many_servers(tmp_path, links, monkeypatch):
    if not links:
        monkeypatch.setattr(module.os, "link", without_links)
    count, fork = 60, multiprocessing.get_context("fork")
    barrier, won = fork.Barrier(2), fork.Queue()
    servers = [
        fork.Process(target=add_all, args=(str(tmp_path), gain, count, barrier, won))
        for gain in (0.25, 0.5)
    ]
    for server in servers:
        server.start()
    winners = [won.get(timeout=60) for _ in range(count)]
    for server in servers:
        server.join(60)
        assert server.exitcode == 0
    assert won.empty() and sorted(index for index, _ in winners) == list(range(count))
    store = VoiceStore(tmp_path)
    for index, gain in winners:
        assert store.get(f"name {index}").acoustic[0] == gain  # whole, and the winner's
    assert len(os.listdir(tmp_path)) == count  # nothing half-written is left


def without_links(*_):
    raise OSError(errno.EPERM, "this file system knows no links")


def test_names_that_are_taken_by_anything_are_taken(tmp_path):
    store = VoiceStore(tmp_path)
    (tmp_path / "folder.voice").mkdir()
    (tmp_path / "dangling.voice").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "dangling"):
        assert code(store.add, name, gain_voice(1.0)) is Code.NAME_TAKEN
    assert not (tmp_path / "nowhere").exists() and store.names() == []


def test_the_folder_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    now, readings = [0.0], []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: readings.append(path) or scandir(path))
    store = VoiceStore(tmp_path, clock=lambda: now[0])
    for index in range(50):
        store.add(f"voice {index:02}", gain_voice(1.0))
    assert len(store.names()) == 50 and store.names()[:2] == ["voice 00", "voice 01"]
    old = time.time() - 60
    os.utime(tmp_path, (old, old))
    now[0] += 1
    store.names()
    readings.clear()
    for _ in range(1_000):
        now[0] += 1
        store.names()
    assert not readings
    other = VoiceStore(tmp_path)  # another server
    other.add("from elsewhere", gain_voice(1.0))
    (tmp_path / "voice 00.voice").unlink()
    now[0] += 1
    assert (
        "from elsewhere" in store.names()
        and "voice 00" not in store.names()
        and len(store.names()) == 50
    )
    readings.clear()
    for _ in range(100):  # it goes on changing
        now[0] += 0.01
        store.names()
    assert 1 <= len(readings) <= 5


def test_a_list_has_room_in_a_reply_however_many_voices_there_are(tmp_path, monkeypatch):
    store = VoiceStore(tmp_path)
    names = [f"{index:05} {'é' * 50}" for index in range(30_000)]
    monkeypatch.setattr(store._names, "now", lambda: names)
    listed = store.listed()
    assert (
        listed.voices == tuple(names[: len(listed.voices)])
        and listed.more == 30_000 - len(listed.voices) > 0
    )
    assert len(listed.text()) < LARGEST_REPLY


def test_voices_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KNOWN", 3)
    store = VoiceStore(tmp_path)
    for name in "abcde":
        store.add(name, gain_voice(1.0))
        store.get(name)
    assert list(store._known) == ["c", "d", "e"] and store.get("a").acoustic[0] == 1.0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_now_is_not_called_unknown(tmp_path, number, monkeypatch):
    store = VoiceStore(tmp_path)
    store.add("anna", gain_voice(1.0))

    def failing(self, *arguments, **settings):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as bad:
        bad.setattr(Path, "open", failing)
        assert code(store.get, "anna") is Code.INTERNAL
        assert code(store.choose, {"anna": 1.0}) is Code.INTERNAL
        assert code(store.get, "nobody") is Code.UNKNOWN_VOICE
    assert store.get("anna").acoustic[0] == 1.0
    with monkeypatch.context() as bad:
        bad.setattr(module.os, "scandir", failing)
        bad.setattr(store._names, "_stamp", -1)
        bad.setattr(store._names, "_read_at", float("-inf"))
        assert code(store.names) is Code.INTERNAL


def test_a_reader_that_has_no_descriptor_left_is_not_believed(tmp_path, monkeypatch):
    """safetensors calls a file that it could not open for want of a descriptor "not found"."""
    store = VoiceStore(tmp_path)
    store.add("anna", gain_voice(1.0))

    def load(path):
        try:
            raise FileNotFoundError("No such file or directory")
        except OSError as error:
            raise module.VoiceError("no voice file") from error

    monkeypatch.setattr(Voice, "load", load)
    assert code(store.get, "anna") is Code.INTERNAL


def test_what_is_no_voice_is_unknown(tmp_path, caplog):
    store = VoiceStore(tmp_path)
    (tmp_path / "text.voice").write_text("this is none")
    (tmp_path / "folder.voice").mkdir()
    for name in ("text", "folder", "nobody"):
        assert code(store.get, name) is Code.UNKNOWN_VOICE
    assert "'text' cannot be used" in caplog.text  # who runs the server learns why


def test_errors_of_the_store_are_no_end_of_a_connection(tmp_path, monkeypatch):
    async def main():
        async with served(tmp_path) as (_, url), Client(url) as client:
            with monkeypatch.context() as bad:
                bad.setattr(Path, "open", without_links)
                error = await refused(client.start())
                assert error.code is Code.INTERNAL and not error.fatal and "again" in error.advice
            await client.start()
            await client.send(ListVoices().text())
            assert (await client.expect(VoiceList)).voices == ("half", "one")

    asyncio.run(main())


def test_the_store_waits_for_a_disk_without_making_sessions_wait(tmp_path):
    async def main():
        async with served(tmp_path) as (server, url), Client(url) as asking, Client(url) as client:
            right = server.store.listed

            def slow():
                time.sleep(1.0)
                return right()

            server.store.listed = slow
            await asking.send(ListVoices().text())
            await asyncio.sleep(0.05)
            began = time.perf_counter()
            await client.start()
            assert time.perf_counter() - began < 0.7
            assert (await asking.expect(VoiceList)).voices == ("half", "one")

    asyncio.run(main())


def test_one_function_decides_which_fit_a_model_may_use(tmp_path):
    for weights, of_model, used in [
        ("abc", "abc", True),
        ("other", "abc", False),
        (None, "abc", False),
        ("abc", None, False),
    ]:
        voice = fitted(weights)
        found = usable(voice, None, of_model)
        assert (found is voice) is used and (found.fine is not None) is used
        store = VoiceStore(tmp_path / f"{weights} {of_model}", weights=of_model)
        store.add("voice", voice)
        if weights is None:  # a file that does not say what its fit belongs to is none
            with pytest.raises(ServersRefusal, match="no voice 'voice'"):
                store.get("voice")
            continue
        assert (store.get("voice").fine is not None) is used
        assert (store.choose({"voice": 1.0}).fine is not None) is used
    plain = gain_voice(1.0)
    assert usable(plain, "a space", "abc") is plain
    with pytest.raises(module.VoiceError, match="make it again"):
        usable(fitted("abc", space="another"), "a space", "abc")


def test_a_server_and_the_interface_give_the_decoder_the_same_of_a_voice_of_other_weights(tmp_path):
    import rtvc
    from rtvc.models.streaming.interface import conditioned

    vc = rtvc.load()
    converter = vc.model.converter
    width = converter.affine.weight.shape[0]
    styles = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    voice = Voice(
        *styles,
        "old",
        {"space": vc.model.space, "fit": {"weights": "0123456789ab"}},
        torch.full((width,), 3.0),
    )
    store = VoiceStore(tmp_path, vc.model.space, weights=vc.weights)
    store.add("old", voice)
    with pytest.warns(UserWarning, match="other weights"):
        wanted = conditioned(converter, vc._usable(voice))
    torch.testing.assert_close(conditioned(converter, store.get("old")), wanted, rtol=0, atol=0)
    assert (conditioned(converter, voice) - wanted).abs().max() == pytest.approx(3.0, abs=0.01)
