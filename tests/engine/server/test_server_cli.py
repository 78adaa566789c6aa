"""`rtvc serve` as a user runs it, with the shipped model; and the documents that are made from the
types."""

import asyncio
import json
import os
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
import soundfile
from calling import Client

from rtvc.audio.resample import resample
from rtvc.cli import main
from rtvc.engine.protocol import asyncapi
from rtvc.engine.protocol.fields import Code
from rtvc.engine.protocol.messages import FROM_CLIENT, VoiceReady, schema
from rtvc.engine.server import open
from rtvc.engine.streams.capacity import Capacity
from rtvc.errors import EngineError

ROOT = Path(__file__).parents[3]
TOKEN = "a-long-and-secret-token"


def test_the_shipped_model_served_equals_the_shipped_model_offline(tmp_path):
    import rtvc
    from rtvc.voices.voice import Voice

    (tmp_path / "token").write_text(TOKEN)
    log = (tmp_path / "log").open("w+")
    options = [
        "--port",
        "0",
        "--backend",
        "torch-eager",
        "--chunk",
        "25",
        "--no-measure",
        "--max-sessions",
        "2",
        "--fit",
        "2",
        "--verbose",
        "--json",
    ]
    command = [
        sys.executable,
        "-m",
        "rtvc",
        "serve",
        *options,
        "--token-file",
        str(tmp_path / "token"),
        "--voices",
        str(tmp_path / "voices"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    )
    try:
        told = json.loads(server.stdout.readline())
        assert told["backend"] == "torch-eager" and told["step_ms"] == 25
        assert told["sessions"] == 2 and told["voices"] == 0
        url = told["url"]
        speech, rate = soundfile.read(ROOT / "examples/source.flac", dtype="float32")
        speech = resample(speech[: 2 * rate], rate, 24_000)

        async def conversation():
            async with Client(url, TOKEN) as client:
                for frame in client.side.upload(
                    "anna", (ROOT / "examples/reference.flac").read_bytes()
                ):
                    await client.send(frame)
                report = await client.expect(VoiceReady)
                assert report.speech > 1 and report.grade
                await client.start(voice="anna")
                await client.speak(speech)
                stopped = await client.stop()
                assert stopped.dropped_ms == 0
                return client.samples()

        served = asyncio.run(conversation())
        server.terminate()
        assert server.wait(120) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        log.close()
    voice = Voice.load(tmp_path / "voices" / "anna.voice")
    assert voice.source["fit"]["steps"] == 2
    offline = rtvc.load().convert(speech, 24_000, voice)
    assert len(served) == len(offline) and offline.std() > 0.01
    np.testing.assert_allclose(served, offline, atol=1e-4)
    text = (tmp_path / "log").read_text()
    assert (
        "session=" in text and "draining" in text and TOKEN not in text and "Traceback" not in text
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--tls-cert", "cert.pem"], "--tls-key"),
        (["--token-file", "nowhere"], "cannot be read"),
        (["--allow-no-origin"], "without a token"),
        (["--origin", "voice.example.org"], "SCHEME"),
        (["--model", "whole"], "cannot stream"),
        (["--proxy", "proxy.example.org"], "a number like"),
        (["--proxy", "10.0.0.7", "--ray", "--voices", "."], "whose door"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, reason, capsys, tmp_path, monkeypatch):
    from standins import use_tiny_models

    use_tiny_models(monkeypatch)
    assert main(["serve", *options]) == 2
    assert reason in capsys.readouterr().err


def test_a_machine_that_is_too_slow_is_told_so(tmp_path, monkeypatch):
    from standins import use_tiny_models

    use_tiny_models(monkeypatch)
    config = open.ServeConfig(voices=tmp_path, backend="torch-eager", chunk_ms=25)
    monkeypatch.setattr(open, "measure", lambda backend, most: Capacity(0.025, {1: 0.031}, 0))
    with pytest.raises(EngineError, match=r"31\.0 ms of the 25 ms"):
        open.open_service(config)
    service = open.open_service(
        config.model_copy(update={"measure": False, "proxies": [ip_address("10.0.0.7")]})
    )
    assert service.proxies == {"10.0.0.7"}
    assert service.most == 32 and service.store.folder == tmp_path


def test_the_asyncapi_document_is_that_of_the_types():
    stored = (ROOT / "docs/asyncapi.json").read_text("utf-8")
    assert stored == asyncapi.text(), (
        "run python -m rtvc.engine.protocol.asyncapi docs/asyncapi.json"
    )
    found = json.loads(stored)

    def references(node):
        if isinstance(node, dict):
            yield from [node["$ref"]] if "$ref" in node else []
        for inner in (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        ):
            yield from references(inner)

    for reference in references(found):
        node = found
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_protocol_page_names_every_message_field_and_code():
    page = (ROOT / "docs/protocol.md").read_text("utf-8")
    known = {
        word for quoted in re.findall(r"`([^`]+)`", page) for word in re.findall(r"\w+", quoted)
    }
    assert {code.value for code in Code} <= known
    for kind in schema().values():
        assert kind["properties"]["type"]["const"] in known
    assert len(page.splitlines()) < 70  # one page
    assert FROM_CLIENT.validate_json('{"type":"stop"}')
