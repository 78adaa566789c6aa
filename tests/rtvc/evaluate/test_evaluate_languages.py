"""Unit error rates: of what is said in languages without transcripts."""

from pathlib import Path

import numpy as np
import pytest

from rtvc.data.manifest import Entry
from rtvc.errors import ConfigError
from rtvc.evaluate.studies.languages import chosen, error_rate, languages


def test_the_error_rate_counts_edits_without_repetitions() -> None:
    assert error_rate([1, 1, 2, 3, 3, 3, 4], [1, 2, 2, 2, 3, 4, 4]) == 0
    assert error_rate([1, 2, 3, 4], [1, 9, 3]) == 0.5
    assert error_rate([12, 3], [1, 23]) == 1.0


def entries() -> list[Entry]:
    return [
        Entry(Path(f"{speaker}{number}.flac"), speaker, 1.0 + number, 24_000, "", "")
        for speaker in "abcd"
        for number in range(4)
    ]


def test_every_speaker_speaks_before_anybody_speaks_twice() -> None:
    pairs = chosen(entries(), 6)
    assert pairs == chosen(entries(), 6) and len(pairs) == 6
    assert {source.speaker for source, _ in pairs[:4]} == set("abcd")
    for source, target in pairs:
        assert source.speaker != target.speaker and source.seconds >= 2
        assert target.seconds == 4  # their longest
    with pytest.raises(ConfigError, match="two speakers or more, got 1"):
        chosen(entries()[:4], 3)


def test_a_perfect_conversion_has_no_error_and_one_that_says_another_thing_has_chance() -> None:
    pairs = chosen(entries(), 4)
    seed = {source.path: number for number, (source, _) in enumerate(pairs)}

    def read(path: Path) -> np.ndarray:
        return np.full(50, seed[path], np.float32)

    def units(wave: np.ndarray) -> list[int]:
        return [int(wave[0]) * 100 + k for k in range(10)]

    right = languages(lambda path, _: (read(path), 0.0), pairs, units, read)
    assert right.error == 0 and right.chance == 1.0 and right.error_ci95 == (0, 0)

    def other(path: Path, _: list[Path]) -> tuple[np.ndarray, float]:
        return np.full(50, seed[path] + 7, np.float32), 0.0

    wrong = languages(other, pairs, units, read)
    assert wrong.error == 1.0 and wrong.recordings == 4
    assert [said.source for said in wrong.said] == [source.path.name for source, _ in pairs]
