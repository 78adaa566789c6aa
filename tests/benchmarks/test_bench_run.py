"""The benchmarks run with tiny settings and leave the JSON that they promise."""

import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from converters import DelayConverter, TestVoice, TinyConverter
from typer.testing import CliRunner

from rtvc.benchmarks import report
from rtvc.benchmarks.components import EDGE_CHUNKS_MS, cases, parts
from rtvc.benchmarks.live.loopback import clicks, delay_of
from rtvc.benchmarks.live.stalls import Accountant, random_stalls, stalls
from rtvc.benchmarks.stream import stream
from rtvc.engine.backends.eager import TorchBackend
from rtvc.errors import ConfigError
from tests.support.small_models import small_converter, small_dial

ROW = {
    "component": "step",
    "backend": "torch-eager",
    "threads": 1,
    "chunk_ms": 25.0,
    "p50_ms": 4.0,
    "p95_ms": 5.0,
    "p99_ms": 6.0,
    "rtf": 0.16,
}


def test_streams_are_added_until_the_tick_is_full(monkeypatch):
    import rtvc.benchmarks.stream as module

    monkeypatch.setattr(
        module, "ticks", lambda backend, voice, streams, count: [0.006 * streams] * count
    )
    found = stream(TorchBackend(DelayConverter(), 600), TestVoice())
    assert found["sustained"] == 4 and found["breaks_at"] == 6 and found["tick_ms"] == 25.0
    assert [row["fits"] for row in found["rows"]] == [True, True, True, True, False]


def test_stream_measures_real_ticks():
    found = stream(TorchBackend(TinyConverter(), 600), TestVoice(), streams=2, count=5)
    assert found["rows"][0]["streams"] == 2 and found["rows"][0]["p99_ms"] > 0


def test_a_short_conversation_with_stalls_keeps_every_promise():
    found = stalls(0.8, seed=1)
    assert found["stalls"] >= 2 and found["undeclared"] == 0 and found["repeated"] == 0
    assert found["recovery_max_s"] <= 0.2 and found["missing_samples"] > 0
    assert random_stalls(60, 1) == random_stalls(60, 1) != random_stalls(60, 2)


def test_the_accountant_notices_what_is_lost_and_what_is_repeated():
    accountant = Accountant()
    for block in ([1, 2, 3], [4, 5, 0.5, 0, 0, 9, 10], [11, 12], [11, 12, 13]):
        accountant(np.array(block, np.float32))
    assert accountant.missing == 3 and accountant.repeated == 1


def test_delays_are_found_by_envelopes():
    rate, said = 48_000, clicks(8.0, 48_000)
    heard = np.roll(said, int(0.0715 * rate)) * np.random.default_rng(0).choice(
        [-0.5, 0.7], len(said)
    ).astype(np.float32)
    delays = delay_of(said, heard, rate)
    assert len(delays) >= 5 and np.median(delays) == pytest.approx(0.0715, abs=0.002)
    assert len(delay_of(said, np.zeros_like(said), rate)) == 0


def test_results_are_merged_compared_and_shown(tmp_path):
    path = tmp_path / "machine.json"
    assert report.save([ROW, ROW | {"backend": "onnx", "p50_ms": 1.0}], path) == path
    old = report.read(path)
    report.save([ROW | {"backend": "onnx", "p50_ms": 2.0}], path)
    report.save([{"sustained": 4}], path, kind="stream")
    new = report.read(path)
    assert (
        len(new["results"]) == 2
        and new["stream"] == [{"sustained": 4}]
        and new["commit"]
        and new["machine"]["cpu"]
    )
    assert "| 2.0x |" in report.table(new) and "+100 %" in report.compare(old, new)
    report.picture(new, tmp_path / "steps.svg")
    assert "<svg" in (tmp_path / "steps.svg").read_text()
    with pytest.raises(ConfigError, match="hold no step"):
        report.picture({"machine": {}, "results": []}, tmp_path / "none.svg")
    (tmp_path / "bad.json").write_text("[]")
    for name in ("bad.json", "missing.json"):
        with pytest.raises(ConfigError, match="no results file"):
            report.read(tmp_path / name)
    assert (
        report.machine_name({"machine": {"cpu": "AMD EPYC(TM)", "cores": 2, "gpu": None}})
        == "amd-epyc-tm-2-cores"
    )


def test_every_edge_case_runs():
    found = list(cases(TinyConverter(), ("torch-eager",), None))
    assert {case.chunk_ms for case in found if case.component == "gate"} == set(EDGE_CHUNKS_MS)
    for case in found:
        if case.chunk_ms in (12.5, 25.0):
            call = case.make()
            call()
            call()


def test_the_parts_of_the_shipped_model_run():
    converter = small_converter(decoder_dilations=(1,))
    names = set()
    for case in cases(converter, ("torch-eager",), (25.0,)):
        case.make()()
        names.add(case.component)
    model = {"step", "mel", "mel-encoder", "f0", "prosody", "decoder", "istft", "style-encoders-3s"}
    assert names == model | {"gate", "ring", "resampler-48k-24k", "session-48k"}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The command line with a tiny model in place of the shipped one."""
    loaded = SimpleNamespace(model=SimpleNamespace(name="tiny"))
    monkeypatch.setattr(
        "rtvc.engine.loading.streaming",
        lambda model=None, lookahead=None: (loaded, TinyConverter()),
    )
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments):
    import typer

    from rtvc.benchmarks.cli import bench

    app = typer.Typer()
    for name in bench.__all__:
        app.command(name)(getattr(bench, name))
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_the_commands_leave_their_files(tiny):
    out = tiny / "out.json"
    run("stream", "--streams", 2, "--engine", "torch-eager", "--ticks", 5, "--json", out)
    run("stalls", "--minutes", 0.3, "--json", out)
    found = json.loads(out.read_text())
    assert found["stream"][0]["rows"][0]["streams"] == 2 and found["stalls"][0]["undeclared"] == 0


def test_components_are_timed_one_after_another(tiny):
    collecting = gc.isenabled()
    run(
        "components",
        "--backend",
        "torch-eager",
        "--chunk",
        25,
        "--rounds",
        3,
        "--json",
        tiny / "c.json",
    )
    assert gc.isenabled() == collecting
    rows = json.loads((tiny / "c.json").read_text())["results"]
    assert {
        "component",
        "backend",
        "threads",
        "chunk_ms",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "rtf",
        "peak_mib",
    } <= set(rows[0])
    assert {row["component"] for row in rows} == {
        "step",
        "gate",
        "ring",
        "resampler-48k-24k",
        "session-48k",
    }


@pytest.mark.parametrize("model", [small_converter, small_dial])
def test_every_part_of_either_generation_can_be_timed(model):
    made = parts(model(), 600)
    assert {"mel-encoder", "f0", "decoder", "style-encoders-3s"} <= set(made)
    for part in made.values():
        call = part()
        call()
        call()


def test_streamed_quality_knows_its_difference_from_offline(tmp_path):
    import soundfile

    from rtvc.benchmarks.quality import Streamed

    class Loaded:
        """Offline through the same converter as one big chunk."""

        def __init__(self, converter):
            self.converter = converter

        def voice(self, *references):
            return TestVoice(len(references))

        def convert(self, x, rate, voice):
            condition = self.converter.condition(voice.acoustic[None], voice.prosodic[None])
            padded = torch.nn.functional.pad(torch.from_numpy(x), (0, 900 + -(len(x) + 900) % 300))
            with torch.inference_mode():
                y, _ = self.converter(padded[None, None], condition, self.converter.initial(1))
            return y[0, 0, 900 : 900 + len(x)].numpy()

    converter = TinyConverter()
    soundfile.write(
        tmp_path / "a.wav", np.random.default_rng(0).standard_normal(12_345) * 0.1, 24_000
    )
    streamed = Streamed(Loaded(converter), TorchBackend(converter, 600))
    y, seconds = streamed(tmp_path / "a.wav", [tmp_path / "a.wav"])
    assert len(y) == 12_345 and seconds > 0 and streamed.differences[0] < 1e-5
