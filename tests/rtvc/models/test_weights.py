"""The teacher's weights: dequantised from a graph, read from an official checkpoint, written,
loaded, refused."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtvc.cli import main
from rtvc.errors import CheckpointError, VoiceError
from rtvc.teacher import weights
from rtvc.teacher.dequantise import dequantise
from rtvc.teacher.network import Kokoro
from rtvc.teacher.weights import (
    describe,
    import_kokoro,
    load,
    read_checkpoint,
    read_voice,
    teacher_file,
)

onnx = pytest.importorskip("onnx", reason="the [train] extra is not installed")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and two voices and a token table in place of the registries'."""
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": {"a": 43, "b": 44}}))
    for value, name in enumerate(("af_one", "am_two")):
        np.full((510, 256), value, np.float32).tofile(tmp_path / f"{name}.bin")
    monkeypatch.setattr(weights, "tokens_path", lambda: tmp_path / "vocab.json")
    monkeypatch.setattr(
        weights,
        "voice_paths",
        lambda: {name: tmp_path / f"{name}.bin" for name in ("af_one", "am_two")},
    )
    return tmp_path


# ------------------------------------------------------------------------------------------------
# the ONNX graph


def tiny_graph(path: Path) -> dict[str, np.ndarray]:
    """A graph with one of every kind of weight, under the published graph's naming; returns what
    must come out."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}
    expected: dict[str, np.ndarray] = {}
    nodes: list[Any] = []

    def node(kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        output = f"out{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def pack(name: str, values: np.ndarray, scale: Any, zero: Any) -> np.ndarray:
        stored.update(
            {f"{name}_quantized": values, f"{name}_scale": scale, f"{name}_zero_point": zero}
        )
        return np.asarray((values.astype(np.float32) - zero.astype(np.float32)) * scale)

    table = rng.integers(0, 255, (5, 3)).astype(np.uint8)
    expected["bert.embeddings.word_embeddings.weight"] = pack(
        "encoder.bert.embeddings.word_embeddings.weight", table, np.float32(0.1), np.uint8(7)
    )
    gathered = node(
        "Gather",
        "/encoder/bert/embeddings/word_embeddings/Gather_quant",
        ["encoder.bert.embeddings.word_embeddings.weight_quantized", "x"],
    )
    node(
        "DequantizeLinear",
        "dq",
        [
            gathered,
            *(
                f"encoder.bert.embeddings.word_embeddings.weight_{k}"
                for k in ("scale", "zero_point")
            ),
        ],
    )

    matrix = rng.integers(0, 255, (3, 4)).astype(np.uint8)
    scales = rng.uniform(0.1, 1, 4).astype(np.float32)
    zeros = np.arange(4, dtype=np.uint8)
    expected["bert.layer.query.weight"] = pack("onnx::MatMul_1", matrix, scales, zeros).T
    for use in ("layer", "layer_1"):  # a shared layer: only the first node has the true name
        node(
            "MatMulInteger",
            f"/encoder/bert/{use}/query/MatMul_quant",
            ["x", "onnx::MatMul_1_quantized", "xz", "onnx::MatMul_1_zero_point"],
        )

    kernel = rng.integers(-128, 127, (4, 3, 5)).astype(np.int8)
    expected["text_encoder.cnn.0.0.weight"] = pack(
        "/encoder/text_encoder/cnn.0/Mul_output_0", kernel, np.float32(0.3), np.int8(-2)
    )
    names = [f"/encoder/text_encoder/cnn.0/Mul_output_0_{k}" for k in ("quantized", "zero_point")]
    node(
        "ConvInteger",
        "/encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant",
        ["x", names[0], "xz", names[1]],
    )

    for name, target in (
        ("encoder.text_encoder.cnn.0.0.bias", "text_encoder.cnn.0.0.bias"),
        ("encoder.predictor.F0_proj.bias", "predictor.F0_proj.bias"),
    ):
        expected[target] = stored[name] = rng.standard_normal(4).astype(np.float32)
    expected["decoder.generator.resblocks.0.alpha1.0"] = stored[
        "decoder.decoder.generator.resblocks.0.alpha1.0"
    ] = rng.random((1, 4, 1)).astype(np.float32)
    expected["predictor.F0.1.pool.weight"] = stored["/encoder/F0.1/Mul_output_0"] = (
        rng.standard_normal((4, 1, 3)).astype(np.float32)
    )
    node("ConvTranspose", "/encoder/F0.1/pool/ConvTranspose", ["x", "/encoder/F0.1/Mul_output_0"])
    stored["onnx::MatMul_2"] = rng.standard_normal((9, 1)).astype(np.float32)
    expected["decoder.generator.m_source.l_linear.weight"] = stored["onnx::MatMul_2"].T
    node("MatMul", "/decoder/decoder/generator/m_source/l_linear/MatMul", ["x", "onnx::MatMul_2"])
    stored["decoder.decoder.generator.stft.istft.stft.inverse_basis"] = np.ones(
        (2, 1, 2), np.float32
    )
    node(
        "ConvTranspose",
        "/decoder/decoder/generator/istft/stft/ConvTranspose",
        ["x", "decoder.decoder.generator.stft.istft.stft.inverse_basis"],
    )

    # A BiLSTM of 2 inputs and 1 unit: ONNX orders its gates input, output, forget, cell; torch
    # input, forget, cell, output.
    for part, size in (("W", 2), ("R", 1)):
        values = rng.integers(0, 255, (2, size, 4)).astype(np.uint8)
        scale, zero = np.array([0.5, 2.0], np.float32), np.array([3, 3], np.uint8)
        stored.update(
            {
                f"onnx::LSTM_{part}_quantized": values,
                f"onnx::LSTM_{part}_scale": scale,
                f"onnx::LSTM_{part}_zero_point": zero,
            }
        )
        for direction, suffix in enumerate(("", "_reverse")):
            gates = (values[direction].astype(np.float32) - 3) * scale[direction]
            expected[f"predictor.shared.weight_{'ih' if part == 'W' else 'hh'}_l0{suffix}"] = gates[
                :, [0, 2, 3, 1]
            ].T
    bias = stored["onnx::LSTM_B"] = rng.standard_normal((2, 8)).astype(np.float32)
    for direction, suffix in enumerate(("", "_reverse")):
        expected[f"predictor.shared.bias_ih_l0{suffix}"] = bias[direction, :4][[0, 2, 3, 1]]
        expected[f"predictor.shared.bias_hh_l0{suffix}"] = bias[direction, 4:][[0, 2, 3, 1]]
    inputs = [
        "x",
        "onnx::LSTM_W_quantized",
        "onnx::LSTM_R_quantized",
        "onnx::LSTM_B",
        "",
        "",
        "",
        "",
    ]
    inputs += [f"onnx::LSTM_{p}_{k}" for p in "WR" for k in ("scale", "zero_point")]
    node(
        "DynamicQuantizeLSTM",
        "/encoder/shared/LSTM_quant",
        inputs,
        domain="com.microsoft",
        hidden_size=1,
        direction="bidirectional",
    )

    tensors = [
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "tiny", [], [], tensors)), str(path))
    return expected


def test_every_kind_of_weight_comes_out_of_a_graph_under_its_torch_name(tmp_path: Path) -> None:
    expected = tiny_graph(tmp_path / "tiny.onnx")
    came = dequantise(tmp_path / "tiny.onnx")
    assert sorted(came) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(came[name], values, rtol=1e-6, err_msg=name)
        assert (
            came[name].dtype == np.float32
            and came[name].flags.c_contiguous
            and came[name].flags.writeable
        ), name


def test_files_that_are_not_the_graph_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"\x00\xffjunk" * 9)
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        dequantise(tmp_path / "junk.onnx")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])),
        str(tmp_path / "empty.onnx"),
    )
    with pytest.raises(CheckpointError, match="not the quantised graph of Kokoro"):
        dequantise(tmp_path / "empty.onnx")


# ------------------------------------------------------------------------------------------- the
# official checkpoint


def official(path: Path) -> dict[str, Tensor]:
    """A file of the official layout and the network's sizes, each tensor one repeated number;
    returns what must come out."""
    expected, components = {}, {name: {} for name in weights.COMPONENTS}  # type: ignore[var-annotated]
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Kokoro().state_dict().items()}
    for index, (name, shape) in enumerate(shapes.items()):
        component, _, rest = name.partition(".")
        value = torch.full((1,), 0.001 * (index + 1))
        normed = (
            len(shape) == 3
            and name.endswith(".weight")
            and not any(part in name for part in ("_proj", "noise_convs"))
        )
        if normed:  # one number everywhere: v / |v| is 1 / sqrt(entries of a row)
            row = shape.numel() // shape[0]
            components[component][f"module.{rest}_v"] = torch.full((1,), -3.0).expand(shape)
            components[component][f"module.{rest}_g"] = value.expand(shape[0], 1, 1)
            expected[name] = -value / row**0.5
        else:
            components[component][f"module.{rest}"] = value.expand(shape)
            expected[name] = value
    components["bert"]["module.pooler.weight"] = torch.zeros(3)
    components["bert"]["module.embeddings.position_ids"] = torch.arange(3)
    torch.save(components, path)
    return {name: value.expand(shapes[name]) for name, value in expected.items()}


def test_the_official_checkpoint_is_folded_written_and_loaded_back(cache: Path) -> None:
    expected = official(cache / "kokoro-v1_0.pth")
    imported = import_kokoro(cache / "kokoro-v1_0.pth")
    assert (imported.path, imported.source, imported.voices) == (
        teacher_file(),
        "kokoro-v1_0.pth",
        2,
    )
    assert imported.parameters == sum(tensor.numel() for tensor in expected.values())
    assert [path.name for path in teacher_file().parent.iterdir()] == [teacher_file().name], (
        "temporary files were left behind"
    )
    network, bank, alphabet = load()
    assert (
        sorted(bank) == ["af_one", "am_two"]
        and bank["am_two"].eq(1).all()
        and alphabet.tokens == {"a": 43, "b": 44}
    )
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=0, msg=name)
    assert import_kokoro() == imported, "what is cached needs neither network nor checkpoint"
    os.truncate(teacher_file(), 1000)
    with pytest.raises(CheckpointError, match=r"is damaged.*--force"):
        load()


class Hostile:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_hostile_truncated_and_foreign_checkpoints_give_one_clear_error(cache: Path) -> None:
    trap, path = cache / "trap", cache / "bad.pth"
    torch.save({"bert": Hostile(trap)}, path)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of plain tensors"):
        import_kokoro(path)
    path.write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_kokoro(path)
    assert not trap.exists(), "the file's code was run"
    official(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_kokoro(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_kokoro(cache / "absent.pth")
    torch.save([1, 2], path)
    with pytest.raises(
        CheckpointError,
        match="lacks the components bert, bert_encoder, predictor, text_encoder, decoder",
    ):
        import_kokoro(path)
    torch.save({name: {} for name in weights.COMPONENTS if name != "decoder"}, path)
    with pytest.raises(CheckpointError, match=r"lacks the components decoder$"):
        import_kokoro(path)
    assert not teacher_file().exists()


def test_only_components_are_read_and_only_whole_pairs_are_folded(tmp_path: Path) -> None:
    torch.save(
        {
            **{name: {"module.a.weight_g": torch.ones(2, 1)} for name in weights.COMPONENTS},
            "optimizer": {"x": torch.ones(1)},
        },
        tmp_path / "c.pth",
    )
    assert sorted(read_checkpoint(tmp_path / "c.pth")) == sorted(
        f"{name}.a.weight_g" for name in weights.COMPONENTS
    )


def test_a_missing_or_foreign_teacher_and_a_wrong_voice_say_what_to_do(cache: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match="run `rtvc weights import-kokoro` once"):
        describe(teacher_file())
    save_file({"x": torch.zeros(1)}, cache / "other.safetensors")
    with pytest.raises(CheckpointError, match="not a teacher of this version"):
        describe(cache / "other.safetensors")
    (cache / "short.bin").write_bytes(b"1234")
    with pytest.raises(VoiceError, match="4 bytes"):
        read_voice(cache / "short.bin")


def test_the_command_imports_and_shows(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "show"]) == 2
    assert "import-kokoro" in capsys.readouterr().err
    official(cache / "kokoro-v1_0.pth")
    assert (
        main(["weights", "import-kokoro", "--checkpoint", str(cache / "kokoro-v1_0.pth"), "--json"])
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert (
        report["voices"] == 2
        and report["source"] == "kokoro-v1_0.pth"
        and report["size"] == teacher_file().stat().st_size
    )
    assert main(["weights", "show"]) == 0
    assert f"{report['parameters']:,} parameters, 2 voices" in capsys.readouterr().out
