"""The loop over pairs with stand-in evaluators: results, resuming, streaming, the command, the
page."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from converters import DelayConverter, TestVoice
from evaluation import FakeEvaluators, pair_list
from standins import TinyModel, speech, use_tiny_models

from rtvc.errors import AudioError, ConfigError
from rtvc.evaluate.audio import Wave, read
from rtvc.evaluate.converter import LibraryConverter, streamed
from rtvc.evaluate.run import evaluate_pairs
from rtvc.evaluate.summary import METRICS

KEYS = ["summary", "pairs", "unavailable", "machine", "commit", "date", "model"]
"""Of a result."""


class Identity:
    """Gives the source back; counts, and may be killed at a call."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.calls, self.killed_at = 0, killed_at

    def __call__(self, source: Path, references: list[Path]) -> tuple[Wave, float]:
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        self.calls += 1
        return read(source), 0.25


def test_identity_is_fully_its_source(tmp_path: Path) -> None:
    result = evaluate_pairs(
        Identity(), pair_list(tmp_path), model="same", evaluators=FakeEvaluators().bundle()
    )
    summary = result["summary"]
    assert list(result) == KEYS
    assert set(summary) == {*METRICS, "ci95", "pairs_evaluated"}
    assert summary["secs_source"] == pytest.approx(1, abs=1e-5)
    assert summary["secs2_source"] == pytest.approx(1, abs=1e-5)
    assert summary["f0_pcc"] == pytest.approx(1)
    assert summary["rtf"] == pytest.approx(0.25)
    assert summary["wer"] == summary["wer_source"]
    assert summary["secs_target"] < 0.999
    json.dumps(result, allow_nan=False)


def test_numbers_are_of_the_conversion(tmp_path: Path) -> None:
    """A conversion into silence: words lost, similarity and melody gone."""
    path = pair_list(tmp_path)
    result = evaluate_pairs(
        lambda source, references: (np.zeros(24000, np.float32), 0.1),
        path,
        1,
        evaluators=FakeEvaluators().bundle(),
    )
    (pair,) = result["pairs"]
    assert (pair["errors"], pair["words"], pair["wer"]) == (1, 4, 0.25)
    assert (pair["errors2"], pair["wer2"], pair["heard2"]) == (2, 0.5, "quick brown")
    assert (pair["distillmos"], pair["distillmos_source"]) == (
        2.0,
        2 + float(np.abs(read(tmp_path / "eval" / "s0_0.wav")).max()),
    )
    assert pair["heard"] == "the quick brown"
    assert pair["f0_pcc"] is None
    assert pair["dnsmos_ovrl"] == 1
    assert pair["references"] == ["s1_0.wav", "s1_1.wav"]
    assert result["summary"]["f0_pcc"] is None


def test_known_lag_is_taken_out(tmp_path: Path) -> None:
    def late(source: Path, references: list[Path]) -> tuple[Wave, float]:
        return np.concatenate([np.zeros(3000, np.float32), read(source)]), 0.1

    path = pair_list(tmp_path)
    assert evaluate_pairs(late, path, 1, lag=3000, evaluators=FakeEvaluators().bundle())["summary"][
        "f0_pcc"
    ] == pytest.approx(1)
    assert (
        evaluate_pairs(late, path, 1, evaluators=FakeEvaluators().bundle())["summary"]["f0_pcc"]
        < 0.9
    )


def test_killed_run_goes_on(tmp_path: Path) -> None:
    path, cache = pair_list(tmp_path), tmp_path / "cache"
    whole = evaluate_pairs(Identity(), path, evaluators=FakeEvaluators().bundle())
    killed, ears = Identity(killed_at=2), FakeEvaluators()
    with pytest.raises(KeyboardInterrupt):
        evaluate_pairs(killed, path, key="k", cache=cache, evaluators=ears.bundle())
    again = Identity()
    resumed = evaluate_pairs(again, path, key="k", cache=cache, evaluators=ears.bundle())
    assert again.calls == 1
    assert resumed["pairs"] == whole["pairs"]

    silent, idle = FakeEvaluators(), Identity()
    assert (
        evaluate_pairs(idle, path, key="k", cache=cache, evaluators=silent.bundle())["summary"]
        == whole["summary"]
    )
    assert idle.calls == 0
    assert set(silent.asked.values()) == {0}
    other = Identity()
    evaluate_pairs(other, path, key="another", cache=cache, evaluators=silent.bundle())
    assert other.calls == 3
    assert silent.asked["embed"] == 3, "recordings were measured again"


def test_a_judge_that_was_missing_is_asked_later_and_the_others_are_not_asked_again(
    tmp_path: Path,
) -> None:
    path, cache = pair_list(tmp_path), tmp_path / "cache"
    without = evaluate_pairs(
        Identity(), path, key="k", cache=cache, evaluators=FakeEvaluators().without_judges()
    )
    assert without["unavailable"] == {
        "wer2": "no second recogniser",
        "distillmos": "no second opinion",
    }
    assert [without["summary"][metric] for metric in ("wer2", "wer2_source", "distillmos")] == [
        None
    ] * 3
    assert without["summary"]["ci95"]["wer2"] is None
    assert without["pairs"][0]["heard2"] is None
    later = FakeEvaluators()
    whole = evaluate_pairs(Identity(), path, key="k", cache=cache, evaluators=later.bundle())
    asked = {name: count for name, count in later.asked.items() if count}
    assert asked == {"transcribe2": 6, "naturalness": 6}
    assert whole["unavailable"] == {}
    assert (
        whole["pairs"]
        == evaluate_pairs(Identity(), path, evaluators=FakeEvaluators().bundle())["pairs"]
    )


def test_what_is_said_of_recordings_serves_every_result(tmp_path: Path) -> None:
    path, first, second = pair_list(tmp_path), FakeEvaluators(), FakeEvaluators()
    common = tmp_path / "recordings"
    one = evaluate_pairs(
        Identity(),
        path,
        key="a",
        cache=tmp_path / "a",
        recordings=common,
        evaluators=first.bundle(),
    )
    other = evaluate_pairs(
        Identity(),
        path,
        key="b",
        cache=tmp_path / "b",
        recordings=common,
        evaluators=second.bundle(),
    )
    assert one["pairs"] == other["pairs"]
    assert first.asked["transcribe"] == 6 and second.asked["transcribe"] == 3
    assert second.asked["embed"] == 3


def test_a_recording_without_a_transcript_loses_no_words(tmp_path: Path) -> None:
    """What is heard in it must not count among the errors of the others."""
    path = pair_list(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].rpartition("\t")[0] + "\t", *lines[2:]]) + "\n")
    soft = np.full(24000, 0.1, np.float32)
    result = evaluate_pairs(
        lambda source, references: (soft, 0.1), path, evaluators=FakeEvaluators().bundle()
    )
    assert [pair["errors"] for pair in result["pairs"]] == [None, 1, 1]
    assert result["summary"]["wer"] == 0.25
    json.dumps(result, allow_nan=False)


def test_other_references_are_another_conversion(tmp_path: Path) -> None:
    path, cache, convert = pair_list(tmp_path), tmp_path / "cache", Identity()
    evaluate_pairs(convert, path, key="k", cache=cache, evaluators=FakeEvaluators().bundle())
    path.write_text(path.read_text().replace("s1_0.wav s1_1.wav", "s1_1.wav"))
    evaluate_pairs(convert, path, key="k", cache=cache, evaluators=FakeEvaluators().bundle())
    assert convert.calls == 4


def test_threads_measure_the_same(tmp_path: Path) -> None:
    path, seen = pair_list(tmp_path), []
    one = evaluate_pairs(Identity(), path, evaluators=FakeEvaluators().bundle())
    three = evaluate_pairs(
        Identity(),
        path,
        workers=3,
        evaluators=FakeEvaluators().bundle(),
        progress=lambda *step: seen.append(step),
    )
    assert three["pairs"] == one["pairs"]
    assert seen[-1] == ("measure", 3, 3)


@pytest.mark.parametrize(
    "bad",
    [np.full(100, np.nan, np.float32), np.zeros(0, np.float32), np.zeros((1, 100), np.float32)],
)
def test_unusable_conversion_is_an_error(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(AudioError, match="s0_0_to_speaker1"):
        evaluate_pairs(
            lambda source, references: (bad, 0.1),
            pair_list(tmp_path),
            evaluators=FakeEvaluators().bundle(),
        )


@pytest.mark.parametrize("samples", [300, 23999, 24000])
@pytest.mark.parametrize("chunk", [300, 600, 4800])
def test_streamed_output_is_aligned_and_whole(samples: int, chunk: int) -> None:
    wave = torch.from_numpy(speech(1.0, 24_000)[:samples])
    y, seconds = streamed(DelayConverter(), wave, TestVoice(gain=0.5), chunk)  # type: ignore[arg-type]
    assert torch.equal(y, wave * 0.5)
    assert seconds > 0


def test_chunks_convert_as_the_whole_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_models(monkeypatch)
    pair_list(tmp_path)
    source, references = tmp_path / "eval" / "s0_0.wav", [tmp_path / "eval" / "s1_0.wav"]
    whole, seconds = LibraryConverter()(source, references)
    chunked, _ = LibraryConverter(chunk=25)(source, references)
    assert seconds > 0
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(chunked, whole, atol=1e-5)


def test_key_follows_weights_and_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_models(monkeypatch)
    key = LibraryConverter().key
    assert LibraryConverter().key == key
    assert LibraryConverter(chunk=25).key != key
    assert LibraryConverter("whole").key != key
    monkeypatch.setattr("rtvc.models.streaming.assets.load_default", lambda: TinyModel(seed=1))
    assert LibraryConverter().key != key


@pytest.mark.parametrize(
    ("model", "chunk", "message"),
    [(None, 20, "multiple of 12.5"), (None, 0, "multiple"), ("whole", 25, "whole rec")],
)
def test_chunks_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, model: str | None, chunk: float, message: str
) -> None:
    use_tiny_models(monkeypatch)
    with pytest.raises(ConfigError, match=message):
        LibraryConverter(model, chunk)
