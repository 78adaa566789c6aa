"""The loop over pairs with stand-in evaluators: results, resuming, streaming, the command, the
page."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from converters import DelayConverter, TestVoice
from evaluation import FakeEvaluators, pair_list
from standins import TinyModel, speech, use_tiny_models

import rtvc.evaluate.run
from rtvc.cli import main
from rtvc.errors import AudioError, ConfigError
from rtvc.evaluate.audio import Wave, read
from rtvc.evaluate.converter import LibraryConverter, streamed
from rtvc.evaluate.report import marked
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
    assert LibraryConverter("studio").key != key
    monkeypatch.setattr("rtvc.models.streaming.assets.load_default", lambda: TinyModel(seed=1))
    assert LibraryConverter().key != key


@pytest.mark.parametrize(
    ("model", "chunk", "message"),
    [(None, 20, "multiple of 12.5"), (None, 0, "multiple"), ("studio", 25, "whole rec")],
)
def test_chunks_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, model: str | None, chunk: float, message: str
) -> None:
    use_tiny_models(monkeypatch)
    with pytest.raises(ConfigError, match=message):
        LibraryConverter(model, chunk)


def test_command_writes_result_picture_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_models(monkeypatch)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(rtvc.evaluate.run, "standard", lambda workers: FakeEvaluators().bundle())
    path, out, page = pair_list(tmp_path), tmp_path / "out.json", tmp_path / "report"
    threads = torch.get_num_threads()
    arguments = [
        "evaluate",
        "--pairs",
        path,
        "--limit",
        2,
        "--chunk",
        25,
        "--json",
        out,
        "--report",
        page,
        "--workers",
        2,
    ]
    try:
        assert main([str(argument) for argument in arguments]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr()
    printed = said.out
    assert "SECS to target" in printed
    assert "DistillMOS" in printed and "WER2" in printed
    assert "2 pairs" in printed
    assert said.err.splitlines()[-1] == "report 2/2", "a log is told how far it is"

    result = json.loads(out.read_text())
    assert list(result) == KEYS
    assert result["model"] == "stream, 25 ms chunks"
    assert result["summary"]["pairs_evaluated"] == len(result["pairs"]) == 2
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out.cache").rglob("*.npz"))) == 2

    html = (page / "index.html").read_text()
    assert html.count("<tbody>") == 2
    assert html.count("<audio") == 6
    assert (
        "WER2 of the source" in html
        and "heard by the second recogniser: the quick brown fox" in html
    )
    assert "http" not in html, "the page must not need the network"
    assert (page / "overview.png").is_file()
    for pair in result["pairs"]:
        assert (page / "pictures" / f"{pair['pair']}.png").is_file()
        wave, rate = soundfile.read(page / "audio" / f"{pair['pair']}.flac")
        assert (len(wave), rate) == (24000, 24000)


def test_a_backend_of_the_engine_can_run_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtvc.engine.backends.eager import TorchBackend

    use_tiny_models(monkeypatch)
    opened = []

    def open_stepper(converter: object, samples: int) -> TorchBackend:
        opened.append(samples)
        return TorchBackend(converter, samples)  # type: ignore[arg-type]

    backend, plain = (
        LibraryConverter("stream", 25, open_stepper=open_stepper),
        LibraryConverter("stream", 25),
    )
    assert (
        opened == [600]
        and backend.name == "stream, 25 ms chunks, torch-eager"
        and backend.key != plain.key
    )
    x, voice = speech(1.0, 24_000), backend._converter.voice((speech(), 16_000))
    np.testing.assert_allclose(
        backend._timed(x, 24_000, voice)[0], plain._timed(x, 24_000, voice)[0], atol=1e-6
    )


def test_options_that_contradict_are_told_before_files_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--pairs", str(tmp_path / "none.tsv"), "--backend", "auto"]) == 2
    assert "give --chunk as well" in " ".join(capsys.readouterr().err.split())


def test_missing_judges_leave_empty_columns_that_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_tiny_models(monkeypatch)
    monkeypatch.setenv("RTVC_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(
        rtvc.evaluate.run, "standard", lambda workers: FakeEvaluators().without_judges()
    )
    arguments = [
        "evaluate",
        "--pairs",
        pair_list(tmp_path),
        "--limit",
        1,
        "--report",
        tmp_path / "report",
        "--json",
        tmp_path / "out.json",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    assert "second opinion" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        json.loads((tmp_path / "out.json").read_text())["unavailable"]["distillmos"]
        == "no second opinion"
    )
    html = (tmp_path / "report" / "index.html").read_text()
    assert "<td>DistillMOS</td><td>–</td><td>no second opinion</td>" in html
    assert "second recogniser:" not in html


def test_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--pairs", str(tmp_path / "none.tsv")]) == 2
    assert "no list of pairs" in capsys.readouterr().err


def test_words_that_were_not_said_are_marked() -> None:
    assert marked("A CAT SAT ON IT", "A bat sat on.") == "a <mark>bat</mark> sat on"
    assert marked("A CAT", "") == "nothing"
