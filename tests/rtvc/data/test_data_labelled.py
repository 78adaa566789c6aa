"""Labelled speech: what is written is read, pieces keep their labels aligned, draws are functions
of the seed, bad files are told."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rtvc.data.labelled import TEACHER, Cut, load_utterance, save_utterance
from rtvc.data.labelled_speech import Labelled
from rtvc.errors import AudioError, TrainingError
from tests.support.labelled_speech import FRAMES, make_labelled, utterance


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("labelled"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = utterance("anna", 1)
    save_utterance(tmp_path / "a.npz", made)
    read = load_utterance(tmp_path / "a.npz")
    assert (read.speaker, read.bandwidth, read.exact) == ("anna", 16_000, False)
    assert (
        np.array_equal(read.audio, made.audio)
        and np.array_equal(read.f0, made.f0)
        and np.array_equal(read.phonemes, made.phonemes)
    )
    assert np.abs(read.content - made.content).max() < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"], "no temporary file stays"


def test_teacher_files_are_read_as_exact(folder: Path) -> None:
    read = load_utterance(folder / "teacher" / "00000.npz")
    assert read.exact and read.speaker == TEACHER and read.bandwidth == 24_000
    assert set(np.unique(read.confidence)) == {0, 1} and read.f0[read.confidence == 0].max() == 0, (
        "6 Hz is unvoiced"
    )


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    made = utterance("anna", 1)
    np.savez(
        tmp_path / "short.npz",
        audio=made.audio[:600],
        content=made.content,
        phon=made.phonemes,
        f0=made.f0,
    )
    with pytest.raises(AudioError, match="expected"):
        load_utterance(tmp_path / "short.npz")
    np.savez(tmp_path / "lacks.npz", audio=made.audio)
    with pytest.raises(AudioError, match="expected content, f0, phon beside audio"):
        load_utterance(tmp_path / "lacks.npz")
    np.savez(
        tmp_path / "nan.npz",
        audio=made.audio,
        content=made.content * np.nan,
        phon=made.phonemes,
        f0=made.f0,
    )
    with pytest.raises(AudioError, match="not finite"):
        load_utterance(tmp_path / "nan.npz")


@pytest.mark.parametrize("speed", [1.0, 0.8, 1.25])
def test_a_piece_keeps_labels_and_sound_together(speed: float) -> None:
    whole = utterance("bert", 3)
    piece = Cut(whole, 6000, speed, 100)
    wave, phonemes = piece.wave(), piece.phonemes()
    loud = wave.unfold(0, 300, 300).abs().amax(1) > 0.05
    sounding = phonemes == 43
    edges = torch.nonzero(sounding[1:] != sounding[:-1])[:, 0]
    inside = torch.ones(100, dtype=torch.bool)
    for edge in edges:
        inside[max(0, edge - 2) : edge + 3] = False
    assert inside.sum() > 50 and torch.equal(loud[inside], sounding[inside])
    log_f0, voiced = piece.melody(0)
    assert torch.equal(voiced[inside] > 0.5, sounding[inside])
    spectrum = torch.fft.rfft(wave, 1 << 17).abs()
    assert log_f0.exp().mean() == pytest.approx(whole.f0.max() * speed, rel=1e-3)
    around = int(log_f0.exp().mean() * (1 << 17) / 24_000)
    near = slice(around - 60, around + 61)
    assert spectrum[near].argmax() - 60 == pytest.approx(0, abs=12), (
        "the sound has the pitch that the label says"
    )
    assert piece.content().shape == (512, 100)
    assert piece.cutoff() == pytest.approx(8000 * speed - 400)


def test_a_piece_may_be_longer_than_the_utterance() -> None:
    piece = Cut.draw(utterance("anna", 1, 60), 400, 1.0, np.random.default_rng(0))
    assert piece.wave().shape == (120_000,) and piece.wave()[40_000:].abs().max() == 0
    assert piece.melody(450)[0].isfinite().all()


def test_uncertain_voicing_is_not_known() -> None:
    made = utterance("anna", 1)
    made.confidence[:40] = 0.6
    voiced, known = made.voicing(np.arange(10, 150) / 80)
    assert not voiced[:28].any() and not known[:28].any() and known[35:].any()


def test_draws_are_functions_of_the_seed_and_reach_everyone(folder: Path) -> None:
    labelled = Labelled([folder / "real", folder / "teacher"])
    assert len(labelled.files) == 9 and labelled.real == ["anna", "bert"]

    def drawn(seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        return [labelled.pick(rng, k % 3 == 0) for k in range(60)]

    assert drawn(1) == drawn(1) != drawn(2)
    kinds = [labelled.speakers[k] for k in drawn(1)]
    assert all((kind == TEACHER) == (k % 3 == 0) for k, kind in enumerate(kinds)) and {
        "anna",
        "bert",
    } <= set(kinds)
    rng = np.random.default_rng(0)
    anna = labelled.of_speaker["anna"][0]
    assert all(
        labelled.speakers[k := labelled.beside(anna, rng)] == "anna" and k != anna for _ in range(9)
    )
    teacher = labelled.of_speaker[TEACHER][0]
    assert labelled.beside(teacher, rng) == teacher, (
        "every utterance of the teacher has a voice of its own"
    )


def test_rare_speakers_are_tempered(tmp_path: Path) -> None:
    for number in range(8):
        save_utterance(tmp_path / f"a{number}.npz", utterance("anna", number))
    save_utterance(tmp_path / "b.npz", utterance("bert", 0))
    labelled = Labelled([tmp_path])
    assert labelled.shares[0] / labelled.shares[1] == pytest.approx(8**0.35)
    assert labelled.pick(np.random.default_rng(0), True) in range(9), (
        "real speech stands in for a missing teacher"
    )


def test_held_out_utterances_are_never_drawn(folder: Path) -> None:
    labelled = Labelled([folder], held_out=4)
    assert (
        len(labelled.held_out) == 4
        and sum(labelled.speakers[k] == TEACHER for k in labelled.held_out) == 2
    )
    rng = np.random.default_rng(0)
    assert not {labelled.pick(rng, k % 2 == 0) for k in range(200)} & set(labelled.held_out)
    with pytest.raises(TrainingError, match="held out"):
        Labelled([folder / "teacher"], held_out=3)


def test_bad_files_are_told_and_replaced(tmp_path: Path) -> None:
    folder = make_labelled(tmp_path / "speech")
    labelled = Labelled([folder], shortest=1.5)
    assert "cut_off.npz" in "".join(labelled.remarks()) and not labelled.remarks()
    number = labelled.of_speaker["anna"][0]
    labelled.files[number].write_bytes(b"PK")
    first, again = labelled.utterance(number)[0], labelled.utterance(number)[0]
    assert first == again != number and labelled.speakers[first] != TEACHER
    (line,) = labelled.remarks()
    assert str(labelled.files[number]) in line and "make it again" in line
    with pytest.raises(TrainingError, match="no labelled speech"):
        Labelled([tmp_path / "nowhere"])
    short = Labelled([folder / "teacher"], shortest=FRAMES / 40)
    assert not short.remarks()
    with pytest.raises(TrainingError):
        Labelled([folder / "teacher"], shortest=FRAMES / 40 + 0.1)
