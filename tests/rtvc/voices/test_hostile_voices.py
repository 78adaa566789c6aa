"""Voice files of people who mean no good: what they say is shown and counted only within what is
possible."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from standins import REPORT

from rtvc.cli import main
from rtvc.errors import VoiceError
from rtvc.models.streaming import load_default
from rtvc.models.streaming.interface import conditioned
from rtvc.models.streaming.style import REGISTER
from rtvc.voices.provenance import DEEPEST
from rtvc.voices.voice import LARGEST_FINE, LARGEST_STYLE, Voice


def written(
    path: Path, source: Any = None, tensors: dict[str, torch.Tensor] | None = None, **metadata: str
) -> Path:
    """A voice file with something in it that should not be there."""
    text = source if isinstance(source, str) else json.dumps({} if source is None else source)
    good = {"format": "rtvc-voice", "version": "1", "name": "x", "source": text}
    save_file(
        {"acoustic": torch.zeros(128), "prosodic": torch.zeros(128)} | (tensors or {}),
        path,
        good | metadata,
    )
    return path


@pytest.mark.parametrize("field", ["path", "grade", "advice"])
def test_nothing_that_a_voice_file_says_acts_on_the_terminal(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\ud800\n[red]x"
    entry = REPORT | {field: [evil] if field == "advice" else evil}
    source = {
        "references": [entry],
        "space": "s\x1b[1m",
        "mix": [{"share": 0.5, "name": evil}],
        "fit": {"weights": evil},
    }
    path = written(tmp_path / "x.voice", source, name=f"n{evil[:-8]}")
    assert main(["voice", "show", str(path)]) == 0
    told = capsys.readouterr().out
    assert (
        "\x1b" not in told
        and "\x07" not in told
        and "\ud800" not in told
        and r"\x1b[2J\x1b]0;owned\x07\ud800\n[red]x" in told
    )
    assert main(["voice", "show", str(path), "--json"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    voice = Voice.load(path)
    assert (voice.name, voice.space, voice.speech) == ("n[2J]0;owned", r"s\x1b[1m", 5.5)
    assert voice.parts == [(0.5, r"\x1b[2J\x1b]0;owned\x07\ud800\n[red]x")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("speech", 10**400),
        ("speech", 8.0),
        ("speech", -1),
        ("speech", True),
        ("speech", None),
        ("seconds", 1e7),
        ("bandwidth", 10**400),
        ("bandwidth", -1.0),
        ("clipped", 1.5),
        ("level", 1e300),
        ("snr", "40"),
        ("grade", 3),
        ("grade", "x" * 200),
        ("advice", ["a"] * 21),
        ("advice", [1]),
        ("advice", "a"),
    ],
)
def test_a_report_that_cannot_be_is_none(field: str, value: Any, tmp_path: Path) -> None:
    voice = Voice.load(
        written(tmp_path / "x.voice", {"references": [REPORT | {field: value}, REPORT]})
    )
    assert voice.references == [REPORT] and voice.speech == 5.5
    assert repr(voice) == "Voice('x', space=None, speech=5.5 s)"


@pytest.mark.parametrize("share", [10**400, -0.1, 1.1, True, None, "1"])
def test_a_share_that_cannot_be_is_no_part(share: Any, tmp_path: Path) -> None:
    source = {"mix": [{"share": share, "name": "a"}, {"share": 0.25, "name": "b"}]}
    assert Voice.load(written(tmp_path / "x.voice", source)).parts == [(0.25, "b")]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": ' + "1" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_no_json_is_no_source(text: str, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="a source that is not JSON"):
        Voice.load(written(tmp_path / "x.voice", text))


def test_what_lies_too_deep_is_left_out_and_the_voice_can_be_saved_again(tmp_path: Path) -> None:
    deep: Any = {"references": [REPORT]}
    for _ in range(300):
        deep = {"mix": [deep]}
    voice = Voice.load(written(tmp_path / "x.voice", {"references": [REPORT], "deep": deep}))
    again = Voice.load(voice.save(tmp_path / "y.voice"))
    assert again.source == voice.source and again.speech == 5.5
    depth, inner = 0, voice.source["deep"]
    while inner:
        depth, inner = depth + 1, inner["mix"] if isinstance(inner, dict) else inner[0]
    assert depth == DEEPEST - 1


@pytest.mark.parametrize("space", ["", 3, None, ["stream"], "x" * 101])
def test_a_style_space_has_a_name(space: Any, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="a style space that is no name"):
        Voice.load(written(tmp_path / "x.voice", {"space": space}))


@pytest.mark.parametrize(
    "fit", [None, {}, {"weights": 3}, {"weights": ""}, {"weights": None}, "abc"]
)
def test_a_fit_to_no_weights_is_refused(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="is fitted, and does not say to which weights"):
        Voice.load(written(tmp_path / "x.voice", {"fit": fit}, {"fine": torch.zeros(9)}))


@pytest.mark.parametrize("size", [LARGEST_STYLE + 0.01, 1e38, -1e38])
def test_styles_that_no_encoder_says_are_refused(size: float, tmp_path: Path) -> None:
    for part in ("acoustic", "prosodic"):
        with pytest.raises(
            VoiceError, match=f"the {part} style of 'x' reaches .*, no recording brings it above 64"
        ):
            Voice.load(written(tmp_path / "x.voice", tensors={part: torch.full((128,), size)}))
    with pytest.raises(VoiceError, match="up to 65536 numbers of at most 1000"):
        Voice.load(
            written(
                tmp_path / "x.voice",
                {"fit": {"weights": "a"}},
                {"fine": torch.full((9,), min(max(16 * size, -1e38), 1e38))},
            )
        )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_styles_are_floats(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match=f"expected floating point, got {str(dtype)[6:]} numbers"):
        Voice.load(
            written(tmp_path / "x.voice", tensors={"prosodic": torch.zeros(128, dtype=dtype)})
        )


def test_the_bound_of_styles_is_twice_what_the_shipped_encoders_say_of_anything() -> None:
    model, samples = load_default(), torch.arange(72_000)
    noise = torch.randn(72_000, generator=torch.Generator().manual_seed(0))
    click = (samples == 36_000).float()
    tones = [torch.sin(2 * math.pi * f * samples / 24_000) for f in (50, 200, 5_000)]
    found = {}
    for name, wave in {
        "silence": torch.zeros(72_000),
        "noise": noise,
        "quiet": 1e-4 * noise,
        "click": click,
        "DC": 1.0 + 0 * noise,
    }.items():
        with torch.inference_mode():
            found[name] = max(float(style.abs().max()) for style in model.styles(wave[None, None]))
    with torch.inference_mode():
        found["tones"] = max(
            float(style.abs().max()) for wave in tones for style in model.styles(wave[None, None])
        )
    assert LARGEST_STYLE / 2.5 < max(found.values()) < LARGEST_STYLE / 2, found


def test_the_largest_styles_that_load_sound_finite_whichever_way_they_point() -> None:
    model = load_default()
    x = 0.1 * torch.randn(1, 1, 24_000, generator=torch.Generator().manual_seed(0))
    fine = torch.full((model.decoder.style_size,), float(LARGEST_FINE))
    for row in range(3):
        for sign in (1.0, -1.0):
            prosodic = (
                sign * LARGEST_STYLE * model.targets.out.weight[row].sign()
            )  # moves one of the targets as far as can be
            acoustic = sign * LARGEST_STYLE * model.affine.weight[row].sign()
            voice = Voice(acoustic, prosodic, "x", {"fit": {"weights": "a"}}, sign * fine)
            with torch.inference_mode():
                condition = conditioned(model, voice)
                y, state = model(x, condition, model.initial(1))
                z, _ = model(torch.zeros_like(x), condition, state)
            assert (
                y.isfinite().all()
                and z.isfinite().all()
                and REGISTER[0] <= condition[0, 0] <= REGISTER[1]
            )


def test_a_name_that_cannot_be_written_is_cleaned() -> None:
    assert Voice(torch.zeros(128), torch.zeros(128), "a\ud800\x1bb").name == "ab"
    assert Voice(torch.zeros(128), torch.zeros(128), "\x07").name == "voice"
