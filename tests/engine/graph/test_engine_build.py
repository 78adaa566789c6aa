"""Engine directories: every backend steps like torch eager, and nothing stale or foreign is ever
loaded."""

import json

import numpy as np
import pytest
import torch
from converters import DelayConverter, TestVoice, TinyConverter

import rtvc.engine.auto as choosing
from rtvc.engine.auto import choose, worthwhile
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.build import build
from rtvc.engine.cached import load, open_backend
from rtvc.engine.graph.manifest import MANIFEST, read_manifest
from rtvc.engine.identity import model_hash
from rtvc.engine.streams.session import Session
from rtvc.engine.trial import compare, held, probe
from rtvc.errors import DependencyError, EngineError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def converter():
    return TinyConverter(width=160).eval()


@pytest.fixture(scope="module")
def onnx(converter, tmp_path_factory):
    directory = tmp_path_factory.mktemp("engines") / "onnx"
    build(converter, "onnx", directory, 600)
    return directory


def through(backend, seed=0):
    x = probe(600, 12).flatten().numpy()
    session = Session(backend, TestVoice(seed))
    return np.concatenate([session.push(x), session.flush()])


def test_onnx_steps_like_torch_for_any_number_of_rows(converter, onnx):
    backend, eager = load(onnx, converter), TorchBackend(converter, 600)
    np.testing.assert_allclose(through(backend), through(eager), atol=2e-6)
    for rows in (1, 3):
        x = torch.randn(rows, 1, 600)
        voice = torch.cat([eager.condition(TestVoice(i)) for i in range(rows)])
        state = torch.randn(rows, eager.layout.size)
        for got, wanted in zip(
            backend.step(x, voice, state), eager.step(x, voice, state), strict=True
        ):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_int8_weights_are_smaller_and_close(converter, onnx, tmp_path):
    build(converter, "onnx-int8", tmp_path / "int8", 600, onnx / "step.onnx")
    backend, eager = load(tmp_path / "int8", converter), TorchBackend(converter, 600)
    assert (tmp_path / "int8" / "step.onnx").stat().st_size < 0.4 * (
        onnx / "step.onnx"
    ).stat().st_size
    figures = compare([eager, backend], steps=16)
    # Seven bits of evenly spread weights err by (1/63) / sqrt(12) of the largest, 1/126 of their
    # rms: 42 dB. Eight bits over the range of activations, some eight times their rms, err by
    # 1/110: 41 dB. Both in two layers: 35.5 dB.
    assert figures[0]["fidelity_db"] > 100 and 35 < figures[1]["fidelity_db"] < 80


def test_int8_products_cannot_saturate_on_any_processor(converter, onnx, tmp_path):
    """Without VNNI, pairs of products are added in 16 bits."""
    import onnx as format

    build(converter, "onnx-int8", tmp_path / "int8", 600, onnx / "step.onnx")
    model = format.load(str(tmp_path / "int8" / "step.onnx"))
    weights = [
        format.numpy_helper.to_array(x)
        for x in model.graph.initializer
        if x.name.endswith("_quantized")
    ]
    largest = max(int(abs(w.astype(int)).max()) for w in weights)
    assert (
        {w.dtype for w in weights} == {np.dtype("int8")}
        and largest >= 60
        and 2 * 255 * largest < 2**15
    )


@pytest.mark.parametrize(
    ("name", "least"), [("openvino", 80), ("openvino-bf16", 25), ("openvino-int8", 25)]
)
def test_openvino_steps_like_torch(converter, onnx, tmp_path, name, least):
    pytest.importorskip("openvino")
    if name == "openvino-int8":
        pytest.importorskip("nncf")
    build(converter, name, tmp_path / name, 600, onnx / "step.onnx")
    backend, eager = load(tmp_path / name, converter), TorchBackend(converter, 600)
    assert compare([eager, backend], steps=16)[1]["fidelity_db"] > least
    x, voice, state = (
        torch.randn(2, 1, 600),
        eager.condition(TestVoice(1)).repeat(2, 1),
        eager.initial(2),
    )
    assert backend.step(x, voice, state)[0].shape == (2, 1, 600)


def test_openvino_steps_plainly_where_a_precision_cannot_be_had(converter, onnx, tmp_path):
    pytest.importorskip("openvino")
    build(converter, "openvino-bf16", tmp_path / "engine", 600, onnx / "step.onnx")
    backend, eager = load(tmp_path / "engine", converter), TorchBackend(converter, 600)
    core, asked = backend.core, []

    class Refusing:
        """Knows no bfloat16, or nothing at all."""

        def __init__(self, known):
            self.known = known

        def compile_model(self, model, device, settings):
            asked.append(settings["INFERENCE_PRECISION_HINT"])
            if asked[-1] not in self.known:
                raise RuntimeError("Exception from core.cpp:\ncould not create a primitive")
            return core.compile_model(model, device, settings)

    backend.core = Refusing({"f32"})
    backend.requests.clear()
    assert compare([eager, backend], steps=16)[1]["fidelity_db"] > 80
    assert asked == ["bf16", "f32"] * 2, "for one session, and for many"
    backend.core = Refusing(())
    backend.requests.clear()
    with pytest.raises(
        EngineError, match=r"\(could not create a primitive\): use the backend onnx-int8 or onnx"
    ):
        compare([eager, backend], steps=1)


def test_the_manifest_says_what_the_engine_is(converter, onnx):
    manifest = read_manifest(onnx)
    assert (manifest.backend, manifest.chunk, manifest.latency, manifest.sample_rate) == (
        "onnx",
        600,
        900,
        24_000,
    )
    assert manifest.model == model_hash(converter) and set(manifest.files) == {"step.onnx"}


def test_stale_foreign_and_damaged_engines_are_refused(converter, onnx, tmp_path):
    import shutil

    with pytest.raises(EngineError, match="made for the model"):
        load(onnx, TinyConverter(width=160, seed=1))
    with pytest.raises(EngineError, match="made for the"):
        load(onnx, DelayConverter())
    with pytest.raises(EngineError, match=r"holds no engine\.json"):
        load(tmp_path, converter)
    copy = tmp_path / "copy"
    shutil.copytree(onnx, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    for change, message in [
        ({"versions": {"onnxruntime": "0.1"}}, "versions"),
        ({"machine": "PDP-11"}, "machine"),
        ({"format": 99}, "expected format 2, got 99"),
        ({"extra": 1}, "damaged"),
        ({"backend": "abacus"}, "abacus"),
        (
            {"answer": [value + 0.5 for value in manifest["answer"]]},
            "another version of the model's code",
        ),
    ]:
        (copy / MANIFEST).write_text(json.dumps(manifest | change))
        with pytest.raises(EngineError, match=message):
            load(copy, converter)
    (copy / MANIFEST).write_text("{")
    with pytest.raises(EngineError, match="damaged"):
        load(copy, converter)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with (copy / "step.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(EngineError, match="was changed"):
        load(copy, converter)


def test_other_peoples_files_are_not_overwritten(converter, onnx, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(EngineError, match="no engine"):
        build(converter, "onnx", tmp_path, 600, onnx / "step.onnx")
    assert (tmp_path / "letter.txt").read_text() == "dear" and len(list(tmp_path.iterdir())) == 1
    target = tmp_path / "engine"
    for _ in range(2):
        build(converter, "onnx", target, 600, onnx / "step.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine", "letter.txt"]


def test_a_cached_engine_is_rebuilt_when_it_is_stale(converter, onnx, tmp_path, monkeypatch):
    built = []
    real = build

    def counted(model, backend, directory, chunk, source=None, target=None):
        built.append(backend)
        return real(model, backend, directory, chunk, onnx / "step.onnx")

    monkeypatch.setattr("rtvc.engine.cached.build", counted)
    for _ in range(2):
        assert open_backend(converter, "onnx", 600, tmp_path).name == "onnx"
    assert built == ["onnx"]
    (next(tmp_path.glob("*-onnx-600")) / "step.onnx").write_bytes(b"junk")
    assert open_backend(converter, "onnx", 600, tmp_path).name == "onnx"
    assert built == ["onnx", "onnx"]
    assert open_backend(converter, "torch-eager", 600, tmp_path).name == "torch-eager"


def test_auto_takes_what_holds_most_sessions_and_remembers(converter, onnx, tmp_path, monkeypatch):
    calls = []

    def measured(backends, steps=40):
        calls.append([backend.name for backend in backends])
        # Milliseconds of a step and sessions held; the fastest step is not what holds most.
        figures = {
            "torch-eager": (9.0, 1, 200.0),
            "onnx": (4.0, 6, 100.0),
            "onnx-int8": (1.0, 9, 3.0),
            "openvino-int8": (2.0, 1, 40.0),
        }
        return [
            {
                "p50_ms": figures[b.name][0],
                "p95_ms": 0.0,
                "cpu_ms": figures[b.name][0],
                "many_ms": 0.0,
                "sessions": figures[b.name][1],
                "fidelity_db": figures[b.name][2],
            }
            for b in backends
        ]

    real = build
    monkeypatch.setattr(
        "rtvc.engine.cached.build",
        lambda m, n, d, c, s=None, target=None: real(m, n, d, c, onnx / "step.onnx"),
    )
    monkeypatch.setattr(choosing, "compare", measured)
    names = ("onnx", "onnx-int8", "openvino-int8")
    for _ in range(2):
        backend, found = choose(converter, 600, cache=tmp_path, candidates=names)
        assert (
            backend.name == "onnx" and found["measured"]["onnx-int8"]["fidelity_db"] == 3.0
        )  # the fastest one is another model
    assert calls == [
        ["torch-eager", "onnx"],
        ["torch-eager", "onnx", "onnx-int8"],
        ["torch-eager", "onnx", "openvino-int8"],
        ["torch-eager", *names],
    ]
    choose(converter, 600, cache=tmp_path, candidates=names, again=True)
    assert len(calls) == 8
    (tmp_path / "auto.json").write_text("{")
    choose(converter, 600, cache=tmp_path, candidates=names)
    assert len(calls) == 12


@pytest.mark.parametrize(
    ("batches", "one", "many", "sessions"),
    [
        ((), 10.0, 31.0, 2),  # 10, 17, 24: of a tick of 25 ms, 20 may be used
        ((), 4.0, 10.0, 9),  # 2 ms for each but the first
        ((1, 2, 4, 8, 16), 4.0, 10.0, 8),  # a ninth is padded to sixteen
        ((1, 2), 4.0, 10.0, 6),  # in pairs of 6 ms, as many as fit
        ((), 21.0, 30.0, 0),
        ((), 0.1, 0.1, 256),
    ],
)
def test_sessions_are_predicted_from_two_batches(batches, one, many, sessions):
    assert held(batches, 25.0, one, many) == sessions


def test_bfloat16_is_built_only_where_the_processor_has_it(monkeypatch):
    names = ("onnx", "openvino-bf16")
    for here, wanted in [
        ({"avx2"}, ["torch-eager", "onnx"]),
        ({"avx2", "avx512_bf16"}, ["torch-eager", "onnx", "openvino-bf16"]),
        (None, ["torch-eager", "onnx", "openvino-bf16"]),
    ]:
        monkeypatch.setattr(choosing.processor, "features", lambda here=here: here)
        monkeypatch.setattr(choosing, "find_spec", lambda package: True)
        assert worthwhile(names) == wanted


def test_auto_survives_a_backend_that_cannot_be_built(converter, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise DependencyError("no such package")

    monkeypatch.setattr("rtvc.engine.cached.build", refuse)
    backend, found = choose(converter, 600, cache=tmp_path, candidates=("onnx",))
    assert backend.name == "torch-eager" and found["refused"] == {"onnx": "no such package"}


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path))
    assert choosing.cache_folder() == tmp_path / "engines"
    monkeypatch.delenv("RTVC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert choosing.cache_folder() == tmp_path / "rtvc" / "engines"


@pytest.mark.parametrize(("samples", "size"), [(1200, 2048), (600, 600), (40, 24), (64, 64)])
def test_the_exported_fft_is_the_fft(samples, size):
    from rtvc.engine.graph.fft import rfft

    x = torch.randn(2, 3, samples, dtype=torch.float64)
    torch.testing.assert_close(rfft(x, size), torch.fft.rfft(x, size), rtol=0, atol=1e-11)
    with pytest.raises(EngineError, match="cannot be exported"):
        rfft(x, 97)


def test_torchs_own_compiler_steps_like_torch(tmp_path):
    """`compile` is the short name; the engine belongs to this machine's CPU."""
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    tiny = TinyConverter().eval()
    manifest = build(tiny, "compile", tmp_path / "engine", 600)
    assert (
        manifest.backend == "torch-compile"
        and manifest.machine == choosing.machine()
        and set(manifest.files) == {"step.pt2"}
    )
    backend, eager = load(tmp_path / "engine", tiny), TorchBackend(tiny, 600)
    np.testing.assert_allclose(through(backend), through(eager), atol=2e-6)
    for rows in (1, 5):
        arguments = (
            torch.randn(rows, 1, 600),
            eager.condition(TestVoice(1)).repeat(rows, 1),
            torch.randn(rows, eager.layout.size),
        )
        for got, wanted in zip(backend.step(*arguments), eager.step(*arguments), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_torchs_own_compiler_needs_a_compiler(converter, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DependencyError, match=r"install g\+\+"):
        build(converter, "compile", tmp_path / "engine", 600)
    assert list(tmp_path.iterdir()) == []
