"""The page of samples: who is heard on it is a rule, everything it names is there, and it never
grows beyond its limit."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from standins import speech

from rtvc.benchmarks.pages import samples
from rtvc.benchmarks.pages.sample_pairs import (
    FASTER,
    ROLES,
    Recording,
    chosen,
    corpora,
    faster,
    median_f0,
    telephone,
)
from rtvc.errors import ConfigError
from rtvc.models.streaming import StreamingConfig, StreamingConverter, save_file
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.encoder import EncoderConfig

ROOT = Path(__file__).parents[2]
RATE = 24_000
PITCH = {"anna": 210.0, "bert": 95.0, "carl": 120.0, "dora": 250.0}
OTHERS = ("kerstin", "nathalie", "aishell3_ssb0139")


def table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of four English speakers and a German one, and the extra corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    english: list[Sequence[object]] = [("path", "speaker", "seconds", "transcript")]
    heads = ("path", "speaker", "seconds", "licence", "source")
    german, extra = [heads], [heads]
    for speaker, pitch in PITCH.items():
        for number, seconds in enumerate((1.5, 2.0)):
            place = folder / "eval" / speaker / f"{speaker}-{number}.flac"
            place.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(place, speech(seconds, 16_000, pitch), 16_000)
            english.append((f"{speaker}/{place.name}", speaker, seconds, "HELLO"))
    for speaker in OTHERS:
        german_one = speaker == "kerstin"
        base = folder / "train" if german_one else folder / "extra"
        (base / speaker).mkdir(parents=True)
        soundfile.write(base / speaker / "a.flac", speech(1.5, 16_000, 180.0), 16_000)
        row = (f"{speaker}/a.flac", speaker, "1.5", "CC0 1.0", "some/repository")
        (german if german_one else extra).append(row)
    table(folder / "eval.tsv", english)
    table(folder / "train.tsv", german)
    table(folder / "extra" / "train.tsv", extra)
    return folder, folder / "extra"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model of either generation: with a dial, and without."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    decoder = {"decoder_hidden": 16, "decoder_dilations": (1,)}
    styles = {"acoustic_hidden": 8, "prosodic_hidden": 8, "pitch_hidden": 8}
    encoder = EncoderConfig(hidden=12, dilations=(1,), attention=(), content=6)
    dial = DialConverter(
        DialConfig.model_validate(
            {"encoder": encoder, "pitch_dilations": (1,), "timbre": ()} | decoder | styles
        )
    )
    old = StreamingConverter(
        StreamingConfig.model_validate(
            {"content_hidden": 16, "content_dilations": (1,), "pitch_dilations": (1,)}
            | decoder
            | styles
        )
    )
    return save_file(dial, folder / "dial.safetensors"), save_file(old, folder / "old.safetensors")


def test_the_roles_are_what_the_page_promises(corpus: tuple[Path, Path]) -> None:
    """Ten pairs: the deepest and the highest voice, a telephone, three other languages."""
    pairs = chosen(*corpora(*corpus))
    assert len(pairs) == len(ROLES) == 10
    at = {pair.title: pair for pair in pairs}
    assert at["To a deep voice"].reference.recording.speaker == "bert"
    child = at["A child-like high voice speaks"].source
    assert (child.recording.speaker, child.change) == ("dora", "faster")
    assert at["To a child-like high voice"].reference.recording.speaker == "dora"
    assert at["A telephone recording"].source.change == "telephone"
    assert [pair.source.recording.speaker for pair in pairs[-3:]] == list(OTHERS)
    assert all(pair.source.recording.speaker in PITCH for pair in pairs[:-3])
    assert pairs == chosen(*corpora(*corpus))


def test_the_length_decides_which_recording(corpus: tuple[Path, Path]) -> None:
    """The one nearest to the wanted length, the first of the table among equals."""
    english, others = corpora(*corpus)
    ranks = {"a": 1.0, "b": 2.0}

    def said(name: str, seconds: float) -> Recording:
        return Recording(Path(f"{name}.flac"), name[0], seconds, "CC0", "here")

    few = [said("a1", 4.0), said("a2", 6.5), said("a3", 6.0), said("b1", 9.0), said("b2", 9.0)]
    pairs = chosen(few, others, lambda group: ranks[group[0].speaker])
    assert pairs[0].source.recording.path.name == "a1.flac"
    assert pairs[0].reference.recording.path.name == "b1.flac"
    assert pairs[2].reference.recording.path.name == "a2.flac"
    with pytest.raises(ConfigError, match="two speakers, got 1"):
        chosen(few[:3], others, lambda group: 1.0)
    with pytest.raises(ConfigError, match="CC BY-NC"):
        chosen(
            english,
            [other._replace(licence="CC BY-NC 4.0") for other in others],
            lambda group: PITCH[group[0].speaker],
        )


def test_other_languages_need_the_extra_corpus(corpus: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"nathalie.*--extra"):
        chosen(*corpora(corpus[0], None), lambda group: PITCH[group[0].speaker])
    with pytest.raises(ConfigError, match="there is none"):
        corpora(corpus[0], corpus[0] / "eval")


def test_a_child_like_voice_is_higher_and_a_telephone_narrow() -> None:
    high = speech(2.0, RATE, PITCH["dora"])
    assert median_f0([high]) == pytest.approx(PITCH["dora"], rel=0.02)
    assert median_f0([faster(high)]) / median_f0([high]) == pytest.approx(FASTER, rel=0.02)

    tone = {
        hertz: 0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
        for hertz in (60, 1_000, 3_900, 6_000)
    }
    gain = {hertz: float(np.std(telephone(x)) / np.std(x)) for hertz, x in tone.items()}
    assert all(len(telephone(x)) == RATE for x in tone.values())
    assert gain[1_000] == pytest.approx(1, abs=0.05)
    assert gain[60] < 0.05 and gain[3_900] < 0.4 and gain[6_000] < 0.01


def test_the_bit_rate_falls_until_everything_fits() -> None:
    waves = {"a": speech(4.0, RATE), "b": speech(3.0, RATE, 200.0)}
    high, kilobits = samples.encoded(waves)
    assert kilobits == samples.KILOBITS[0]
    size = sum(map(len, high.values()))
    assert size == pytest.approx(7 * kilobits * 125, rel=0.35)
    low, fewer = samples.encoded(waves, size - 1)
    assert fewer < kilobits and sum(map(len, low.values())) < size
    with pytest.raises(ConfigError, match=r"at most 0\.001 MB of Opus"):
        samples.encoded(waves, 1_000)


def test_a_dial_is_heard_at_every_look_ahead_asked_for(weights: tuple[Path, Path]) -> None:
    dial, old = map(str, weights)
    columns, remarks = samples.columns_of(dial, (25.0, 100.0), old)
    assert [column.slug for column in columns] == ["ahead25", "ahead100", "before"]
    assert not remarks
    assert "100 ms ahead" in columns[1].title and "latency" in columns[1].title
    wave = speech(1.5, RATE)
    near, far, before = (column.convert(wave, speech(2.0, RATE, 210.0)) for column in columns)
    assert len(near) == len(far) == len(before) == len(wave)
    assert not np.array_equal(near, far) and not np.array_equal(near, before)
    with pytest.raises(ConfigError, match="expected a look-ahead of"):
        samples.columns_of(dial, (33.0,), None)


def test_columns_that_are_not_there_are_told(weights: tuple[Path, Path]) -> None:
    _, old = map(str, weights)
    columns, remarks = samples.columns_of(old, (25.0, 100.0), old)
    assert [column.slug for column in columns] == ["converted"]
    assert "no latency dial" in remarks[0] and "no generation before" in remarks[1]


def test_the_page_names_every_file_licence_and_change(
    corpus: tuple[Path, Path], weights: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, extra = corpus
    dial, old = map(str, weights)
    out = tmp_path / "samples"
    out.mkdir()
    stale = out / "07-converted.opus"
    stale.write_bytes(b"of an earlier page")
    samples.main(folder, extra, dial, old, [25.0], out, samples.LARGEST)
    page = (out / "index.md").read_text()
    heard = set(re.findall(r'src="([^"]+)"', page))
    assert heard == {path.name for path in out.glob("*.opus")} and len(heard) == 40
    assert not stale.exists()
    assert re.search(r"\| bert \| 9\d Hz \|", page)
    for line in ("CC BY 4.0", "CC0 1.0", "played 1.25 times as fast", "mu-law", "some/repository"):
        assert line in page
    assert page.count("\n| ") == 2 * len(ROLES) + 2
    assert str(tmp_path) not in page and "--model dial.safetensors" in page
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    samples.main(folder, extra, dial, old, [25.0], out, samples.LARGEST)
    again = {path.name: path.read_bytes() for path in out.iterdir()}
    assert again == first, "what sounds the same was written anew"


def test_the_page_in_the_repository_is_whole() -> None:
    """Under 3 MB, every player has its file, every file its player."""
    folder = ROOT / "docs" / "samples"
    heard = set(re.findall(r'src="([^"]+)"', (folder / "index.md").read_text()))
    files = {path.name: path.stat().st_size for path in folder.glob("*.opus")}
    assert heard == set(files) and len(heard) >= 3 * len(ROLES)
    assert sum(files.values()) < samples.LARGEST
