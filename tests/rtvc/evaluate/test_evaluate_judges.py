"""The optional judges: what they say of real speech, and what is said where they are not
installed."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from rtvc.errors import DependencyError
from rtvc.evaluate import evaluators
from rtvc.evaluate.audio import RATE, read
from rtvc.evaluate.evaluators import standard
from rtvc.evaluate.judges import distillmos
from rtvc.evaluate.judges.moonshine import Moonshine, installed_model, pieces
from rtvc.evaluate.text import wer

SOURCE = Path(__file__).parents[3] / "examples" / "source.flac"
SAID = "HE STOOD STILL IN DEFERENCE TO THEIR CALLS AND PARRIED THEIR BANTER WITH EASY WORDS"


def needs(package: str) -> pytest.MarkDecorator:
    """Skips where a package is missing; it is not imported."""
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"needs the package {package}"
    )


@needs("moonshine_voice")
def test_the_second_recogniser_understands_speech_and_hears_nothing_in_silence() -> None:
    recogniser = Moonshine()
    heard = recogniser.transcribe(read(SOURCE))
    assert wer(SAID, heard)[0] <= 1
    assert recogniser.transcribe(np.zeros(RATE, np.float32)) == ""
    assert recogniser.transcribe(np.zeros(0, np.float32)) == ""


@needs("moonshine_voice")
def test_the_second_recogniser_takes_a_minute_and_a_moment() -> None:
    """Beyond ten seconds its mask spans more than one block; in a moment there is room for one word
    at most."""
    recogniser, wave = Moonshine(), read(SOURCE)
    once = len(recogniser.transcribe(wave).split())
    assert len(recogniser.transcribe(np.tile(wave, 3)).split()) > 2 * once
    assert len(recogniser.transcribe(wave[: RATE // 4]).split()) <= 2


@needs("distillmos")
def test_the_second_opinion_hears_noise_and_crackle() -> None:
    score, wave = distillmos.judge(), read(SOURCE)
    clean = score(wave)
    noisy = score(wave + np.random.default_rng(0).normal(0, 0.03, len(wave)).astype(np.float32))
    coarse = score((np.round(wave * 8) / 8).astype(np.float32))
    assert clean > 3.8
    assert noisy < clean - 0.7
    assert coarse < clean - 0.7
    assert score(wave) == clean
    assert score(0.5 * wave) == pytest.approx(clean, abs=0.01), "how loud it is does not matter"


@needs("distillmos")
def test_no_stand_in_for_torchaudio_stays_behind() -> None:
    distillmos.judge()
    assert "torchaudio" not in sys.modules or importlib.util.find_spec("torchaudio") is not None


def test_missing_judges_are_named_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*arguments: object, **settings: object) -> object:
        return type("Nobody", (), {"transcribe": None, "embed": None})()

    def absent() -> object:
        raise DependencyError("there is no such judge: install it")

    monkeypatch.setattr(evaluators, "Recogniser", nobody)
    monkeypatch.setattr(evaluators, "SpeakerEncoder", nobody)
    monkeypatch.setattr(evaluators, "Moonshine", absent)
    monkeypatch.setattr(evaluators, "judge", absent)
    found = standard.__wrapped__()
    assert found.transcribe2 is None and found.naturalness is None
    assert found.missing == dict.fromkeys(
        ("wer2", "distillmos"), "there is no such judge: install it"
    )


def test_a_package_without_the_model_says_which_version_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("moonshine_voice", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(
        DependencyError, match=r"no model in tiny-en, as 0\.0\.49 has.*moonshine-voice==0\.0\.49"
    ):
        installed_model()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="moonshine-voice, which is not installed"):
        installed_model()


def test_a_vocabulary_is_read_by_its_lengths() -> None:
    long = b"x" * 300
    data = b"\x02ab" + b"\x00" + bytes([300 % 128 + 128, 300 // 128]) + long + b"\x01c"
    assert list(pieces(data)) == [b"ab", b"", long, b"c"]
