"""Units of speech, their files, and phonemes by CTC."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rtvc.data.speech import Cut, Speech
from rtvc.data.symbols import BOUNDARY
from rtvc.data.utterance import load_utterance, save_utterance
from rtvc.errors import AudioError, CheckpointError, TrainingError
from rtvc.train.material.copies import make_copies
from rtvc.train.material.labelling import same_codebook
from rtvc.train.material.units import Codebook, cluster
from rtvc.train.streaming.phonemes import best_path, spread
from rtvc.voices.voice import Voice
from tests.support.unit_speech import make_unit_speech, utterance


def test_clusters_are_found_and_kept(tmp_path: Path) -> None:
    centres = torch.tensor([[[5.0, 0.0], [0.0, 5.0], [-5.0, -5.0]]]).repeat(2, 1, 1)
    which = torch.arange(300) % 3
    heard = centres[:, which] + 0.1 * torch.randn(
        2, 300, 2, generator=torch.Generator().manual_seed(0)
    )
    book = cluster([heard[:, :100], heard[:, 100:]], clusters=12)
    book.save(tmp_path / "book.safetensors")
    units = Codebook.load(tmp_path / "book.safetensors").units(heard)
    for layer in units:
        owners = [set(layer[which == k].tolist()) for k in range(3)]
        assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]


def test_a_codebook_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="rtvc data codebook"):
        Codebook.load(tmp_path / "x.safetensors")
    with pytest.raises(TrainingError, match="expected at least 500 frames of speech, got 3"):
        cluster([torch.zeros(2, 3, 4)])
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    same_codebook(tmp_path / "labels", tmp_path / "a")
    same_codebook(tmp_path / "labels", tmp_path / "a")
    with pytest.raises(TrainingError, match="another codebook"):
        same_codebook(tmp_path / "labels", tmp_path / "b")


def test_an_utterance_comes_back_as_it_was(tmp_path: Path) -> None:
    made = utterance("anna", 1, text="tab\tand ü")
    save_utterance(tmp_path / "u.npz", made)
    again = load_utterance(tmp_path / "u.npz")
    for name in ("audio", "units", "phonemes", "f0", "confidence"):
        assert np.array_equal(getattr(again, name), getattr(made, name)), name
    assert (again.speaker, again.bandwidth, again.text) == ("anna", 16_000.0, "tab\tand ü")
    with np.load(tmp_path / "u.npz") as file:
        parts = dict(file)
    np.savez(tmp_path / "short.npz", **(parts | {"phonemes": parts["phonemes"][:-1]}))
    with pytest.raises(AudioError, match="expected"):
        load_utterance(tmp_path / "short.npz")


def test_labels_stand_where_the_piece_sounds() -> None:
    """A piece played faster, seen at an offset: every frame has the label of the instant it
    sounds."""
    made = utterance("bert", 3)
    piece = Cut(made, start=4800, speed=1.25, frames=40)
    seconds = piece.seconds(60)
    assert seconds[0] == pytest.approx((4800 + 60 * 1.25) / 24_000)
    assert seconds[8] - seconds[0] == pytest.approx(8 * 300 * 1.25 / 24_000)
    wanted = made.units[:, np.round(seconds * 50).astype(int)]
    assert np.array_equal(piece.units(60).numpy(), wanted)
    assert piece.melody(60)[0].exp().median() == pytest.approx(1.25 * made.f0.max(), rel=1e-3)


def test_held_out_speakers_are_never_drawn_and_broken_files_are_told(tmp_path: Path) -> None:
    folder = make_unit_speech(tmp_path / "a", count=4)
    shutil.copytree(folder, tmp_path / "b")
    speech = Speech([folder, tmp_path / "b"], [3.0, 1.0], held_out=6)
    apart = {speech.speakers[number] for number in speech.held_out}
    assert len(speech.held_out) == 6 and apart
    rng = np.random.default_rng(0)
    drawn = [speech.pick(rng) for _ in range(400)]
    for place, name in enumerate(("a", "b")):
        mine = [n for n in drawn if speech.files[n].parent.name == name]
        kept_back = {
            speech.speakers[n] for n in speech.held_out if speech.files[n].parent.name == name
        }
        assert kept_back and not kept_back & {speech.speakers[n] for n in mine}
        assert abs(len(mine) / 400 - (0.75, 0.25)[place]) < 0.08
    assert any("cut_off.npz" in line for line in speech.remarks())
    with pytest.raises(TrainingError, match="rtvc data label"):
        Speech([tmp_path / "nothing"])


def test_copies_say_the_same_in_other_voices_or_do_not_count(tmp_path: Path) -> None:
    folder = make_unit_speech(tmp_path / "a", 2)
    for path in folder.glob("*.npz"):
        if path.name == "cut_off.npz":
            path.unlink()
        else:
            save_utterance(path, utterance(path.stem.split("_")[0], int(path.stem[-1]), 5.0))
    book = Codebook(
        torch.zeros(2, 1), torch.ones(2, 1), torch.arange(20.0)[None, :, None].repeat(2, 1, 1)
    )
    asked: list[str] = []

    def voice_of(wave: np.ndarray) -> Voice:  # type: ignore[type-arg]
        return Voice(torch.zeros(128), torch.zeros(128))

    def convert(wave: np.ndarray, voice: Voice) -> np.ndarray:  # type: ignore[type-arg]
        asked.append(voice.name)
        return -wave

    said = {
        name: load_utterance(folder / f"{name}_0.npz").units
        for name in ("anna", "bert", "carl", "dora")
    }

    def listen(wave: np.ndarray) -> torch.Tensor:  # type: ignore[type-arg]
        """What anna and bert say is understood, the others' is not."""
        known = {
            hash(load_utterance(p).audio[:99].tobytes()): load_utterance(p).units
            for p in folder.glob("[ab]*_[01].npz")
        }
        units = known.get(hash((-wave[:99] * 32768).round().astype(np.int16).tobytes()))
        return (
            torch.zeros(2, 250, 1)
            if units is None
            else torch.from_numpy(units.astype(np.float32))[..., None]
        )

    done = make_copies(folder, convert, voice_of, book, listen)
    assert (done.written, done.differ, done.existing) == (4, 4, 0) and len(asked) == 8 and said
    again = make_copies(folder, convert, voice_of, book, listen)
    assert (again.written, again.differ, again.existing) == (0, 0, 8) and len(asked) == 8
    speech, rng = Speech([folder]), np.random.default_rng(0)
    for number, path in enumerate(speech.files):
        copy = speech.copy_of(number, rng)
        assert (copy is not None) == (path.stem[0] in "ab")
        if copy is not None:
            assert np.abs(copy + speech.load(number).audio).max() <= 2


def test_the_best_path_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    scores = np.log(rng.dirichlet(np.ones(4), size=6))
    tokens = [2, 3, 3]
    best, wanted = -np.inf, None
    for path in itertools.product(range(4), repeat=6):
        collapsed = [k for k, _ in itertools.groupby(path) if k != BOUNDARY]
        if collapsed == tokens and (total := sum(scores[t, k] for t, k in enumerate(path))) > best:
            best, wanted = total, path
    assert wanted is not None
    spent = best_path(scores, tokens)
    assert [BOUNDARY if k < 0 else tokens[k] for k in spent] == list(wanted)
    with pytest.raises(AudioError, match="at most 3 phonemes in 3 frames, got 4"):
        best_path(scores[:3], tokens)


def test_blanks_go_to_the_nearer_phoneme_and_long_ones_are_pauses() -> None:
    path = np.array([-1, 0, -1, -1, 1, *[-1] * 40, 2])
    found = spread(path, [7, 8, 9], silence=20)
    assert found[:5].tolist() == [7, 7, 7, 8, 8]
    assert (
        found[5:10].tolist() == [8] * 5
        and found[10:40].tolist() == [BOUNDARY] * 30
        and found[40:].tolist() == [9] * 6
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"centroids": torch.zeros(2, 5, 3)}, r"expected \(L, C\), \(L, C\) and \(L, K, C\), got"),
        ({"deviation": torch.ones(4, 2)}, r"got \(2, 4\), \(4, 2\), \(2, 5, 4\)"),
        ({"mean": torch.full((2, 4), float("nan"))}, "NaN or infinity"),
        ({"other": torch.zeros(1)}, "expected the format"),
    ],
)
def test_a_hostile_codebook_is_refused(
    tmp_path: Path, change: dict[str, Tensor], told: str
) -> None:
    tensors = {
        "mean": torch.zeros(2, 4),
        "deviation": torch.ones(2, 4),
        "centroids": torch.zeros(2, 5, 4),
    }
    save_file(tensors | change, tmp_path / "book.safetensors", {"format": "rtvc-units"})
    with pytest.raises(CheckpointError, match=told):
        Codebook.load(tmp_path / "book.safetensors")
