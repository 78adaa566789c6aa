"""docs/capacity.md says what its command computes, and the command computes right."""

import re
from pathlib import Path

import pytest

from rtvc.benchmarks import capacity
from rtvc.benchmarks.capacity import (
    Inputs,
    gpus,
    machines,
    report,
    streams_by_step,
    streams_on_the_wire,
    websocket_header,
    wire,
    written,
)

ROOT = Path(__file__).parents[2]


def test_the_document_holds_the_commands_output():
    text = (ROOT / "docs/capacity.md").read_text("utf-8")
    assert written(text, report(Inputs())) == text, (
        "run: python -m rtvc.benchmarks.capacity --write docs/capacity.md"
    )


def test_machines_and_money():
    inputs = Inputs(streams_per_core=6, share=0.5, cores_per_machine=10, dollars_per_core_hour=0.1)
    assert machines(1_000, inputs) == (334, 34, pytest.approx(34.0))
    assert machines(30, inputs)[:2] == (10, 1) and machines(31, inputs)[:2] == (11, 2)
    assert gpus(1_000, inputs) is None
    assert gpus(1_000, Inputs(gpu_streams=200, share=0.5, dollars_per_gpu_hour=2.0)) == (10, 20.0)
    assert streams_by_step(25.0, 4.0) == 5 and streams_by_step(25.0, 2.5) == 8


def test_bytes_on_the_wire():
    """A frame as `websockets` would write it: 960 bytes of audio, our header, and a masked
    websocket header of 8 bytes."""
    from websockets.frames import Frame, Opcode

    for payload, masked in [(60, True), (60, False), (976, True), (1_216, False), (70_000, False)]:
        data = Frame(Opcode.BINARY, bytes(payload)).serialize(mask=masked)
        assert len(data) == payload + websocket_header(payload, masked)
    assert wire(960, 20.0, masked=True) == (960 + 16 + 8 + 22 + 52) * 50
    each = streams_on_the_wire(Inputs())
    assert each["PCM s16"] == (52_900.0, (1_200 + 16 + 4 + 22 + 52) * 40)
    assert each["Opus"][0] == (60 + 16 + 6 + 22 + 52) * 50 and each["Opus"][1] < each["Opus"][0]


def test_the_report_names_its_inputs_and_what_is_unknown():
    text = report(Inputs())
    for name in Inputs.model_fields:
        assert f"`{name}`" in text
    assert text.count("not measured on a GPU yet") == 6
    assert "not measured" not in report(Inputs(gpu_streams=100))
    assert re.search(r"\| 10,000,000 \| 2,380,953 \|", report(Inputs(streams_per_core=6)))


def test_the_command(tmp_path, capsys):
    capacity.main(["--streams-per-core", "12", "--share", "1.0"])
    assert "| 1,000 | 84 |" in capsys.readouterr().out
    path = tmp_path / "doc.md"
    path.write_text(f"before\n{capacity.BEGIN}\nold\n{capacity.END}\nafter\n")
    capacity.main(["--write", str(path)])
    text = path.read_text()
    assert (
        text.startswith("before\n")
        and text.endswith(f"{capacity.END}\nafter\n")
        and "old" not in text
    )
    with pytest.raises(ValueError, match="lacks"):
        written("nothing", "x")


def test_the_saved_session_is_as_large_as_stated():
    """The input `saved_bytes`, against the shipped model's state."""
    from rtvc.engine.loading import streaming
    from rtvc.engine.open import open_engine
    from rtvc.engine.streams.session import Session

    loaded, converter = streaming(None)
    backend, _ = open_engine(converter, "torch-eager", 600)
    import torch

    from rtvc.voices.voice import Voice

    session = Session(backend, Voice(torch.zeros(128), torch.zeros(128)))
    assert loaded is not None and len(session.park()) == pytest.approx(
        Inputs().saved_bytes, rel=0.02
    )


def test_the_latency_table_adds_up():
    text = (ROOT / "docs/capacity.md").read_text("utf-8").partition("Where the milliseconds go")[2]
    cells = re.findall(r"^\| [^|]+ \| ([\d.x ]+) \|", text, re.M)
    values = [eval(cell.replace("x", "*"), {}) for cell in cells]
    assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.05)
