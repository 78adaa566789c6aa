"""TensorRT without a GPU: real engines of TensorRT-RTX, plans, manifests, and every refusal."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rtvc.engine.backends.tensorrt import ENGINE, NETWORK, graph, plan_of
from rtvc.engine.build import build
from rtvc.engine.cached import load, open_backend
from rtvc.engine.graph.gpu import Gpu
from rtvc.engine.graph.manifest import MANIFEST, read_manifest
from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt import flavours
from rtvc.engine.tensorrt.plan import by_parser
from rtvc.engine.tensorrt.rtx import build_engine
from rtvc.errors import ConfigError, EngineError
from tests.support.converters import TinyConverter
from tests.support.gpus import on_machine
from tests.support.small_models import small_converter

CHUNK = 600
pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: pip install 'rtvc-engine[rtx]'"
)
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def converter() -> Any:
    """Wide enough for its first product to be computed in float16."""
    return TinyConverter(width=160).eval()


@pytest.fixture(scope="module")
def engine(converter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engines") / "rtx"
    build(
        converter,
        "tensorrt",
        directory,
        CHUNK,
        target=Target(flavour="rtx", batch=(1, 4, 16), capabilities=("8.6", "12.0")),
    )
    return directory


def test_a_real_engine_of_the_streaming_step_is_built_and_inspected(tmp_path: Path) -> None:
    """The shipped architecture, small, compiled for three generations of GPUs on a machine that has
    none."""
    model = small_converter(decoder_dilations=(2,)).requires_grad_(False)
    manifest = build(
        model,
        "tensorrt",
        tmp_path / "engine",
        CHUNK,
        target=Target(flavour="rtx", capabilities=("8.6", "8.9", "12.0")),
    )
    assert manifest == read_manifest(tmp_path / "engine")
    assert manifest.target == Target(
        flavour="rtx", precision="fp32", batch=(1, 16, 256), capabilities=("8.6", "8.9", "12.0")
    )
    assert set(manifest.files) == {ENGINE, NETWORK} and manifest.versions == {
        "tensorrt-rtx": flavours.rtx().__version__
    }
    facts = json.loads((tmp_path / "engine" / NETWORK).read_text())
    assert {name: one["shape"] for name, one in facts["inputs"].items()} == {
        "x": [-1, 1, CHUNK],
        "voice": [-1, manifest.voice],
        "state": [-1, manifest.state],
    }
    assert {name: one["shape"] for name, one in facts["outputs"].items()} == {
        "y": [-1, 1, CHUNK],
        "next": [-1, manifest.state],
    }
    assert (
        set(facts["types"]) <= {"float", "int32", "int64", "bool"}
        and facts["layers"]["matrix_multiply"] > 15
    )
    assert {"unary", "normalization", "topk"} <= set(
        facts["layers"]
    )  # sines and floors, norms, the peak of the pitch
    assert "cumulative" not in facts["layers"]  # which torch-tensorrt cannot refit
    made = (tmp_path / "engine" / ENGINE).read_bytes()
    weights = sum(
        4 * tensor.numel()
        for name, tensor in model.state_dict().items()
        if not name.startswith(("acoustic", "prosodic"))
    )
    assert len(made) > weights and all(name.encode() in made for name in ("voice", "state", "next"))


def test_float16_halves_what_is_learned(converter: Any, engine: Path, tmp_path: Path) -> None:
    target = Target(flavour="rtx", precision="fp16", batch=(1, 4, 16), capabilities=("8.6", "12.0"))
    manifest = build(converter, "tensorrt", tmp_path / "half", CHUNK, target=target)
    assert manifest.target == target
    single, half = (
        json.loads((directory / NETWORK).read_text())["types"]
        for directory in (engine, tmp_path / "half")
    )
    assert "half" not in single and half["half"] > 2 and half["float"] > 5
    assert (tmp_path / "half" / ENGINE).stat().st_size < 0.9 * (engine / ENGINE).stat().st_size
    again = build(
        converter,
        "tensorrt",
        tmp_path / "one",
        CHUNK,
        target=target.model_copy(update={"capabilities": ("8.6",)}),
    )
    assert again.files[ENGINE] != manifest.files[ENGINE]  # another set of GPUs is another engine


def test_the_plan_needs_no_gpu(converter: Any) -> None:
    found = plan_of(converter, CHUNK, Target())
    assert found.falls == {} and found.converts["MatMul"] == 2 and "TensorRT-RTX" in found.judge
    assert found.lines[0].startswith(
        f"{sum(found.converts.values())} of {sum(found.converts.values())} operators convert"
    )
    assert found.as_dict["converts"] == found.converts


def test_the_plan_names_what_falls_back() -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Det", ["a"], ["d"]),
        helper.make_node("Abs", ["d"], ["y"]),
    ]
    drawing = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [2, 3, 3])], [value("y", TensorProto.FLOAT, [2])]
    )
    model = helper.make_model(drawing, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    found = by_parser(model, flavours.rtx())
    assert found.converts == {"Neg": 1, "Abs": 1} and found.falls == {
        "Det": (1, "TensorRT has no such operator")
    }
    assert any("Det" in line and "falls back" in line for line in found.lines)
    assert found.as_dict["falls"]["Det"]["count"] == 1
    with pytest.raises(EngineError, match=r"does not take this model .*Det.*see rtvc build --plan"):
        build_engine(
            model.SerializeToString(), Target(flavour="rtx", capabilities=("8.6",)), flavours.rtx()
        )


def test_engines_of_another_gpu_model_precision_or_version_are_refused(
    converter: Any, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = "build it again: rtvc build --backend tensorrt"
    with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
        load(engine, converter)
    on_machine(monkeypatch, Gpu("NVIDIA L4", "8.9"))
    with pytest.raises(
        EngineError,
        match=(
            rf"made for GPUs of compute capability 8\.6, 12\.0, here is NVIDIA L4 \(8\.9\): {again}"
        ),
    ):
        load(engine, converter)
    on_machine(monkeypatch, Gpu("NVIDIA GeForce RTX 5090", "12.0"))
    with pytest.raises(EngineError, match="made for the model"):
        load(engine, TinyConverter(width=160, seed=1).eval())
    with pytest.raises(
        EngineError,
        match=r"computes in fp32, fp16 is asked for: build it again with --precision fp16",
    ):
        load(engine, converter, Target(precision="fp16", batch=(1, 4, 16)))
    with pytest.raises(
        EngineError,
        match=r"takes 1 to 16 rows, 1 to 256 are asked for: build it again with --batch 1:16:256",
    ):
        load(engine, converter, Target())
    copy = tmp_path / "copy"
    shutil.copytree(engine, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        (
            {"versions": {"tensorrt-rtx": "1.6.0"}},
            r"made for the versions \{'tensorrt-rtx': '1\.6\.0'\}",
        ),
        (
            {"target": manifest["target"] | {"gpu": "NVIDIA H100"}},
            "made on the GPU NVIDIA H100, here is NVIDIA GeForce RTX 5090",
        ),
        ({"target": manifest["target"] | {"precision": "fp12"}}, "is damaged"),
        ({"target": manifest["target"] | {"batch": [2, 1, 1]}}, "is damaged"),
        ({"target": None}, "does not fit the backend tensorrt"),
    ]
    for change, message in changes:
        (copy / MANIFEST).write_text(json.dumps(manifest | change))
        with pytest.raises(EngineError, match=message):
            load(copy, converter)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with (copy / ENGINE).open("ab") as file:
        file.write(b"!")
    with pytest.raises(EngineError, match=f"the file {ENGINE} .* was changed"):
        load(copy, converter)


def test_what_the_builder_is_asked_must_fit_the_backend(
    converter: Any, engine: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a target for GPUs came for the backend onnx"):
        build(converter, "onnx", tmp_path / "engine", CHUNK, target=Target(precision="fp16"))
    with pytest.raises(ConfigError, match="for the tensorrt backend, got cuda"):
        build(converter, "tensorrt", tmp_path / "engine", CHUNK, target=Target(flavour="cuda"))
    with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
        open_backend(converter, "tensorrt", CHUNK, tmp_path)
    target = read_manifest(engine).target
    with pytest.raises(EngineError, match="TensorRT-RTX builds in seconds and is not refitted"):
        build(converter, "tensorrt", tmp_path / "engine", CHUNK, target=target, refit=engine)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        EngineError, match=r"expected the chunk 300, .* has 600: build anew, without --refit"
    ):
        build(converter, "tensorrt", tmp_path / "engine", 300, target=target, refit=engine)
    damaged = tmp_path / "damaged"
    shutil.copytree(engine, damaged)
    (damaged / NETWORK).write_text("")
    with pytest.raises(EngineError, match=f"{NETWORK} .* was changed: build anew"):
        build(converter, "tensorrt", tmp_path / "engine", CHUNK, target=target, refit=damaged)


def test_no_trace_of_the_building_machine_is_left(converter: Any, engine: Path) -> None:
    from rtvc.engine.graph.onnxgraph import to_onnx, without_notes

    model = to_onnx(graph(converter, CHUNK, Target(flavour="rtx")))
    here = str(Path(__file__).parents[3]).encode()
    without_notes(model)
    assert here not in model.SerializeToString() and here not in (engine / ENGINE).read_bytes()
