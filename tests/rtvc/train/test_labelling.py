"""Units for recordings and for the teacher's speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from rtvc.arrays import Array
from rtvc.data.symbols import BOUNDARY, TOKENS
from rtvc.data.utterance import UNKNOWN, load_utterance
from rtvc.errors import TrainingError
from rtvc.train.material.labelling import label_all
from rtvc.train.material.units import Codebook

SECONDS = 1.0
SILENT = (np.empty(0),) * 3


def listen(wave: Array) -> Tensor:
    """Two layers of one channel: the first tells the frame's number, the second its loudness."""
    frames = torch.from_numpy(wave).unfold(0, 480, 480).square().mean(1).sqrt()
    return torch.stack([torch.arange(float(len(frames))), frames])[..., None]


@pytest.fixture
def codebook(tmp_path: Path) -> Path:
    """Numbers below and above 24.5, loudness below and above .25."""
    book = Codebook(
        torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([[[0.0], [49.0]], [[0.0], [0.5]]])
    )
    book.save(tmp_path / "book.safetensors")
    return tmp_path / "book.safetensors"


def speech() -> Array:
    """Half a second of silence, half a second of a tone with an RMS of .5, int16."""
    tone = 0.5 * 2**0.5 * np.sin(2 * np.pi * 200 * np.arange(12_000) / 24_000)
    return np.append(np.zeros(12_000), 32_767 * tone).astype(np.int16)


def test_what_the_teacher_says_keeps_its_phonemes_and_has_the_melody_that_is_heard(
    tmp_path: Path, codebook: Path
) -> None:
    said = [BOUNDARY] * 8 + [TOKENS["ˈ"]] * 2 + [TOKENS["a"]] * 20 + [TOKENS[" "]] * 10
    meant = np.full(80, 200.0, np.float32)  # through the silent half as well
    for name in ("00000", "00001"):
        np.savez(
            tmp_path / f"{name}.npz",
            audio=speech(),
            content=np.zeros((512, 40), np.float16),
            phon=np.array(said, np.int16),
            f0=meant,
        )
    times = np.arange(100) / 100
    melody = (times, np.full(100, 150.0), (times > 0.5).astype(float))
    report = label_all(tmp_path, tmp_path / "units", codebook, listen, lambda _: melody)
    assert (report.labelled, report.existing, report.seconds) == (2, 0, 2 * SECONDS)
    first, second = map(load_utterance, sorted((tmp_path / "units").glob("*.npz")))
    assert np.array_equal(first.audio, speech())
    assert first.units.tolist() == [[0] * 25 + [1] * 25] * 2
    assert not first.f0[:39].any() and np.allclose(first.f0[42:], 150)
    assert not first.confidence[:39].any() and np.allclose(first.confidence[42:], 1)
    # 40 frames a second become 50; stress and spaces are no sounds
    expected = [BOUNDARY] * 10 + [UNKNOWN] * 3 + [TOKENS["a"]] * 25 + [UNKNOWN] * 12
    assert first.phonemes.tolist() == expected
    assert (first.speaker, second.speaker) == ("teacher-00000", "teacher-00001")
    again = label_all(tmp_path, tmp_path / "units", codebook, listen, lambda _: SILENT)
    assert (again.labelled, again.existing) == (0, 2)


def test_recordings_are_labelled_by_what_is_heard(tmp_path: Path, codebook: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(), 24_000)
    (tmp_path / "list.tsv").write_text("path\tspeaker\ttranscript\na.wav\tanna\thello\n")
    (tmp_path / "broken.wav").write_bytes(b"no")
    with (tmp_path / "list.tsv").open("a") as file:
        file.write("broken.wav\tbert\tgone\n")
    times = np.arange(100) / 100
    melody = (times, np.full(100, 150.0), (times > 0.5).astype(float))
    report = label_all(
        tmp_path / "list.tsv", tmp_path / "units", codebook, listen, lambda _: melody
    )
    assert report.labelled == 1 and list(report.refused) == [str(tmp_path / "broken.wav")]
    (path,) = (tmp_path / "units").glob("*.npz")
    utterance = load_utterance(path)
    assert utterance.units.tolist() == [[0] * 25 + [1] * 25] * 2
    assert (utterance.speaker, utterance.text) == ("anna", "hello")
    assert set(utterance.phonemes) == {UNKNOWN}
    assert not utterance.f0[:39].any() and np.allclose(utterance.f0[42:], 150)


def test_an_empty_folder_is_told(tmp_path: Path, codebook: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="rtvc teacher generate"):
        label_all(tmp_path / "empty", tmp_path / "units", codebook, listen, lambda _: SILENT)
