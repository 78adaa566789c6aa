"""A real browser calls: Chromium's own WebRTC, a microphone that is a file, and the page of the
server."""

import json
import subprocess
import sys
from pathlib import Path

import calls  # noqa: F401  (skips where there is no WebRTC)
import numpy as np
import soundfile
from browser import chromium

SUPPORT = Path(__file__).parents[2] / "support"
CALL = """async () => {
    const peer = new RTCPeerConnection();
    const microphone = await navigator.mediaDevices.getUserMedia({audio: {
        echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
    peer.addTrack(microphone.getAudioTracks()[0], microphone);
    const channel = peer.createDataChannel("rtvc"), said = [], waiting = [];
    channel.onmessage = (event) => {
        said.push(JSON.parse(event.data));
        waiting.splice(0).forEach((wake) => wake());
    };
    const hear = async (type) => {
        for (;;) {
            const found = said.find((message) => message.type === type);
            if (found) return found;
            const error = said.find((message) => message.type === "error");
            if (error) throw new Error(JSON.stringify(error));
            await new Promise((wake) => waiting.push(wake));
        }
    };
    const track = new Promise((found) => (peer.ontrack = (event) => found(event.track)));
    await peer.setLocalDescription(await peer.createOffer());
    const answer = await fetch("/v1/webrtc", {method: "POST", body: peer.localDescription.sdp,
        headers: {"Content-Type": "application/sdp"}});
    if (answer.status !== 201) throw new Error(await answer.text());
    await peer.setRemoteDescription({type: "answer", sdp: await answer.text()});
    await new Promise((open) => (channel.onopen = open));
    const send = (message) => channel.send(JSON.stringify(message));
    send({type: "hello", version: 1});
    await hear("welcome");
    send({type: "start", voice: "half", sample_rate: 48000});
    const started = await hear("started");
    const player = new Audio();
    player.srcObject = new MediaStream([await track]);
    await player.play();
    const context = new AudioContext(), meter = context.createAnalyser();
    meter.fftSize = 32768;
    context.createMediaStreamSource(player.srcObject).connect(meter);
    const levels = new Float32Array(meter.frequencyBinCount);
    let peak = -1000, hertz = 0;
    for (let turn = 0; turn < 100 && peak < -40; turn++) {
        await new Promise((later) => setTimeout(later, 100));
        meter.getFloatFrequencyData(levels);
        levels.forEach((level, bin) => {
            if (level > peak) { peak = level; hertz = bin * context.sampleRate / meter.fftSize; }
        });
    }
    send({type: "stop"});
    const stopped = await hear("stopped");
    let inbound = {};
    (await peer.getStats()).forEach((one) => {
        if (one.type === "inbound-rtp" && one.kind === "audio") inbound = one;
    });
    peer.close();
    return {peak, hertz, started, stopped, received: inbound.packetsReceived || 0,
        answer: answer.status};
}"""


def test_a_browser_calls(tmp_path):
    tone = 0.4 * np.sin(2 * np.pi * 1_000 * np.arange(4 * 48_000) / 48_000)
    soundfile.write(tmp_path / "microphone.wav", tone, 48_000, subtype="PCM_16")
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>call</title>")
    program = [sys.executable, str(SUPPORT / "call_page.py"), str(tmp_path / "v"), str(page)]
    server = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SUPPORT.parents[1]
    )
    try:
        url = server.stdout.readline().strip()
        assert url.startswith("http"), url
        with chromium(tmp_path / "microphone.wav") as browser:
            tab = browser.new_page()
            tab.goto(url)
            told = tab.evaluate(CALL)
        counts = json.loads(server.communicate("", timeout=60)[0])
    finally:
        server.kill()
        server.wait()
    assert told["started"]["format"] == "opus" and told["received"] > 20
    assert abs(told["hertz"] - 1_000) < 15 and told["peak"] > -60
    assert told["stopped"]["samples_out"] == told["stopped"]["samples_in"] > 20 * 960
    assert counts["received"] > 20 and counts["errors"] == 0
