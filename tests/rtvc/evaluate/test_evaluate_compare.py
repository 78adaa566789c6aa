"""Two results compared: the right direction, the right interval, only common pairs; and more pairs
of a corpus."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtvc.cli import main
from rtvc.errors import ConfigError
from rtvc.evaluate.pairs import read_pairs
from rtvc.evaluate.studies.compare import DIRECTIONS, compare, verdict
from rtvc.evaluate.summary import METRICS


def result(count: int = 60, **columns: Any) -> dict[str, Any]:
    """A result whose pairs have these numbers, everything else 0.5."""
    pairs = []
    for place in range(count):
        pair: dict[str, Any] = {metric: 0.5 for metric in METRICS}
        pair |= {
            "pair": f"p{place}",
            "references": ["a.wav"],
            "words": 10,
            "errors": 2,
            "errors2": 2,
            "seconds": 4.0,
            "compute_seconds": 1.0,
        }
        pair |= {name: column[place] for name, column in columns.items()}
        pairs.append(pair)
    return {"pairs": pairs}


def test_paired_noise_cancels_and_the_interval_is_that_of_the_differences() -> None:
    """Two results that share their noise differ by 0.01 +- 0.02 a pair: 60 pairs decide, though
    each mean is known to 0.025 only."""
    rng = np.random.default_rng(3)
    shared, change = rng.normal(0.7, 0.1, 60), rng.normal(0.01, 0.02, 60)
    found = compare(result(secs_target=shared), result(secs_target=shared + change))["secs_target"]
    assert found is not None
    assert found.change == pytest.approx(change.mean()) == pytest.approx(found.after - found.before)
    half = 1.96 * change.std() / 60**0.5
    assert found.low == pytest.approx(change.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(change.mean() + half, abs=0.1 * half)
    assert (found.verdict, found.pairs) == ("better", 60)


def test_equal_results_are_undecided_in_everything() -> None:
    found = compare(result(), result())
    assert set(found) == set(DIRECTIONS)
    assert {difference.verdict for difference in found.values() if difference} == {"undecided"}
    assert all(
        difference and difference.low == difference.high == 0 for difference in found.values()
    )


def test_word_errors_are_totals_over_totals() -> None:
    """A long utterance counts by its words: 10 of 100 errors less there is 10 of 190, not a tenth
    of half the pairs."""
    words, before, after = [100, 90], [20, 9], [10, 9]
    found = compare(result(2, words=words, errors=before), result(2, words=words, errors=after))[
        "wer"
    ]
    assert found is not None
    assert (found.before, found.after) == (pytest.approx(29 / 190), pytest.approx(19 / 190))
    assert (found.low, found.high, found.verdict) == (pytest.approx(-0.1), 0.0, "undecided")


@pytest.mark.parametrize(
    ("low", "high", "direction", "said"),
    [
        (0.1, 0.2, 1, "better"),
        (0.1, 0.2, -1, "worse"),
        (-0.2, -0.1, 1, "worse"),
        (-0.2, -0.1, -1, "better"),
        (-0.1, 0.1, 1, "undecided"),
        (0.0, 0.1, -1, "undecided"),
    ],
)
def test_verdicts_follow_the_direction_of_the_metric(
    low: float, high: float, direction: int, said: str
) -> None:
    assert verdict(low, high, direction) == said


def test_fewer_word_errors_and_less_of_the_source_are_better() -> None:
    found = compare(
        result(errors=[3] * 60, secs_source=[0.6] * 60, distillmos=[3.0] * 60),
        result(errors=[2] * 60, secs_source=[0.5] * 60, distillmos=[2.9] * 60),
    )
    said = {metric: difference and difference.verdict for metric, difference in found.items()}
    assert (said["wer"], said["secs_source"], said["distillmos"]) == ("better", "better", "worse")


def test_only_common_pairs_and_common_values_count() -> None:
    before, after = (
        result(5, f0_pcc=[0.1, 0.2, 0.3, None, 0.5]),
        result(4, f0_pcc=[0.2, None, 0.4, 0.9]),
    )
    after["pairs"][0]["references"] = [
        "b.wav"
    ]  # the same words to the same speaker, but another conversion
    found = compare(before, after)
    assert found["secs_target"] is not None and found["secs_target"].pairs == 3
    melody = found["f0_pcc"]
    assert melody is not None and (melody.pairs, melody.before, melody.after) == (
        1,
        pytest.approx(0.3),
        pytest.approx(0.4),
    )
    for pair in before["pairs"]:
        del pair["distillmos"]  # as in results from before the judge
    assert compare(before, after)["distillmos"] is None
    with pytest.raises(ConfigError, match="no pair in common"):
        compare(result(1), {"pairs": [{**result(2)["pairs"][1]}]})


def test_the_command_prints_and_writes_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, errors in (("before", 3), ("after", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(errors=[errors] * 60)))
    arguments = [
        "evaluate",
        "--compare",
        tmp_path / "before.json",
        tmp_path / "after.json",
        "--json",
        tmp_path / "out.json",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "after against before: 60 pairs" in printed
    assert "-0.100 … -0.100" in printed and "better" in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["metrics"]["wer"]["verdict"] == "better"
    assert written["metrics"]["wer"]["change"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "no json",
        "[]",
        '{"pairs": []}',
        '{"pairs": [{}]}',
        pytest.param("[" * 10**5, id="deep"),
    ],
)
def test_what_is_no_result_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    (tmp_path / "good.json").write_text(json.dumps(result(2)))
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    assert (
        main(["evaluate", "--compare", str(tmp_path / "good.json"), str(tmp_path / "bad.json")])
        == 2
    )
    assert "bad.json is no result" in " ".join(capsys.readouterr().err.split())


def corpus(folder: Path, speakers: int = 5, takes: int = 4) -> Path:
    """A corpus of empty files and a list of one pair a speaker; returns the list's path."""
    table, lines = (
        ["path\tspeaker\tseconds\ttranscript"],
        ["source\ttarget_speaker\treferences\ttranscript"],
    )
    for speaker in range(speakers):
        (folder / "eval" / f"s{speaker}").mkdir(parents=True)
        for take in range(takes):
            name = f"s{speaker}/s{speaker}_{take}.flac"
            (folder / "eval" / name).touch()
            table.append(f"{name}\ts{speaker}\t1.0\tWORDS {speaker} {take}")
        target = (speaker + 1) % speakers
        lines.append(
            f"s{speaker}/s{speaker}_0.flac\ts{target}\ts{target}/s{target}_1.flac\tWORDS"
            f" {speaker} 0"
        )
    (folder / "eval.tsv").write_text("\n".join(table) + "\n")
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.tsv"


def test_more_pairs_are_new_balanced_and_always_the_same(tmp_path: Path) -> None:
    path = corpus(tmp_path)
    pairs = read_pairs(path, more=15)
    new = pairs[5:]
    assert len({pair.source for pair in pairs}) == 20, (
        "every recording is a source before any is one twice"
    )
    assert set(Counter(pair.source.parent.name for pair in new).values()) == {3}
    assert set(Counter(pair.target for pair in new).values()) == {3}
    assert all(pair.source.parent.name != pair.target for pair in new)
    assert len({(pair.source.parent.name, pair.target) for pair in new}) == 15
    assert all(
        len(set(pair.references)) == 3 and {r.parent.name for r in pair.references} == {pair.target}
        for pair in new
    )
    assert all(pair.transcript == "WORDS " + pair.source.stem[1:].replace("_", " ") for pair in new)
    assert read_pairs(path, more=15) == pairs
    assert read_pairs(path, more=7) == pairs[:12], "a longer list goes on from a shorter one"
    assert read_pairs(path, 6, more=15) == pairs[:6]
    assert [pair.name for pair in new[:3]] == FIRST


FIRST = ["s4_1_to_s0", "s3_3_to_s1", "s0_1_to_s2"]
"""As every machine draws them."""


def test_more_pairs_than_there_are_is_an_error(tmp_path: Path) -> None:
    path = corpus(tmp_path)
    every = read_pairs(path, more=75)
    assert len({(pair.source, pair.target) for pair in every}) == 80, (
        "each of 20 recordings to each of 4 other speakers"
    )
    with pytest.raises(ConfigError, match="expected 76 more pairs"):
        read_pairs(path, more=76)
    (tmp_path / "eval.tsv").write_text("path\tspeaker\n")
    with pytest.raises(ConfigError, match=r"eval\.tsv lacks the columns path, speaker, transcript"):
        read_pairs(path, more=1)
    (tmp_path / "eval.tsv").unlink()
    with pytest.raises(ConfigError, match="leave --more out"):
        read_pairs(path, more=1)


def test_the_corpus_gives_200_pairs_with_every_recording_once() -> None:
    path = Path(__file__).parents[4] / "shared" / "corpus" / "eval_pairs.tsv"
    if not path.is_file():
        pytest.skip("needs the recordings of ../shared/corpus")
    pairs = read_pairs(path, more=140)
    assert len({pair.source for pair in pairs}) == 200
    assert set(Counter(pair.target for pair in pairs).values()) == {10}
