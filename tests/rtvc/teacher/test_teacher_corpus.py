"""Speech of the teacher: texts, requests, engines, folders that resume, the commands."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rtvc.cli import main
from rtvc.errors import ConfigError, TextError
from rtvc.teacher import corpus, engines
from rtvc.teacher.engines import Request, Take, TorchEngine, open_engine
from rtvc.teacher.kokoro import Teacher
from tests.support.teachers import random_teacher, relative


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Random weights, float64."""
    return random_teacher()


class FakeEngine:
    """Says nothing, but keeps count; batches of two."""

    def __init__(self, teacher: Teacher) -> None:
        self.batch, self.bank, self.alphabet = 2, teacher.bank, teacher.alphabet
        self.asked: list[Request] = []

    def make(self, requests: Sequence[Request]) -> Iterator[Take]:
        for request in requests:
            self.asked.append(request)
            frames = len(request.tokens)
            ones = np.ones(2 * frames, np.float32)
            yield Take(
                np.full(600 * frames, 2.0, np.float32),
                np.ones((512, frames), np.float32),
                ones,
                ones,
                np.array(request.tokens),
            )


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters for phonemes: no eSpeak needed."""
    monkeypatch.setattr(corpus, "phonemize", list)


TEXTS = [
    "One two three four five six",
    "too short",
    " ".join(["ab", "de", "fi"][i % 3] * (i // 9 + 1) for i in range(40)),
]


def test_texts_are_cut_into_pieces() -> None:
    runs = corpus.pieces(TEXTS)
    assert (
        sorted(len(run.split()) for run in runs) == [6, 18, 18]
        and runs == sorted(runs)
        and runs[0].islower()
    )
    with pytest.raises(TextError, match="none of the 1 texts"):
        corpus.pieces(["too short"])


def test_a_corpus_resumes_shares_work_and_depends_on_the_index_alone(
    teacher: Teacher, tmp_path: Path, spoken: None
) -> None:
    whole, seen = FakeEngine(teacher), []
    done = corpus.generate(tmp_path / "whole", TEXTS, 5, whole, seed=3, report=seen.append)
    assert (done.written, done.existing, len(seen), len(whole.asked)) == (
        5,
        0,
        5,
        5,
    ) and done.speech > 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == [f"{i:05d}.npz" for i in range(5)], "and no temporary file"
    again = FakeEngine(teacher)
    (tmp_path / "whole" / "00003.npz").unlink()
    assert (
        corpus.generate(tmp_path / "whole", TEXTS, 5, again, seed=3).existing == 4
        and len(again.asked) == 1
    )
    for part in range(2):
        corpus.generate(
            tmp_path / "parts", TEXTS, 5, FakeEngine(teacher), seed=3, part=part, parts=2
        )
    for name in names:
        one, other = np.load(tmp_path / "whole" / name), np.load(tmp_path / "parts" / name)
        assert all(np.array_equal(one[key], other[key]) for key in one)
        frames = one["phon"].shape[0]
        kinds = {key: (one[key].dtype.name, one[key].shape) for key in one}
        assert kinds == {
            "audio": ("int16", (600 * frames,)),
            "content": ("float16", (512, frames)),
            "f0": ("float32", (2 * frames,)),
            "n": ("float32", (2 * frames,)),
            "phon": ("int16", (frames,)),
            "style": ("float32", (256,)),
        }
        assert one["audio"].max() == 32767, "clipped, not wrapped"
    with pytest.raises(ConfigError, match="part 2 of 2"):
        corpus.generate(tmp_path, TEXTS, 1, whole, part=2, parts=2)


def test_requests_vary_voices_prosody_and_speed(teacher: Teacher, spoken: None) -> None:
    runs = corpus.pieces(TEXTS)
    asked = [corpus.request(i, runs, 0, teacher.bank, teacher.alphabet) for i in range(60)]
    assert (
        len({request.seed for request in asked}) == len({request.speed for request in asked}) == 60
    )
    assert (
        all(0.8 <= request.speed <= 1.2 for request in asked)
        and len({request.tokens for request in asked}) == 3
    )
    pure = sum(
        any(
            np.array_equal(request.style[:128], teacher.bank[name][len(request.tokens) - 3, :128])
            for name in teacher.bank
        )
        for request in asked
    )
    assert 8 <= pure <= 30, "three in ten are one voice"


def test_the_torch_engine_gives_what_the_teacher_says(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(teacher)
    tokens = teacher.alphabet.encode("æn")
    style = teacher.bank.style("af_one", len(tokens) - 2)
    (take,) = engine.make([Request(tuple(tokens), style.numpy(), 1.0, 5)])
    said = teacher.say("æn", "af_one", seed=5, ipa=True)
    assert (
        engine.batch == 1
        and relative(take.audio, said.waveform[0]) < 1e-6
        and np.array_equal(take.tokens, said.tokens[0])
    )
    assert take.content.shape == said.content.shape[1:] and take.content.dtype == np.float32
    with pytest.raises(ConfigError, match="no engine 'tape'"):
        open_engine("tape")
    with pytest.raises(ConfigError, match="the device tape cannot be used here"):
        open_engine("torch", "tape")
    monkeypatch.setattr(Teacher, "load", lambda **how: teacher)
    assert isinstance(open_engine("torch"), TorchEngine)
    monkeypatch.setattr(engines, "fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr(engines, "_has_onnx", lambda: False)
    assert isinstance(open_engine("auto"), TorchEngine)


def test_the_commands(
    teacher: Teacher,
    tmp_path: Path,
    spoken: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import soundfile

    monkeypatch.setattr(Teacher, "load", lambda **how: teacher)
    out = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert (
        main(
            [
                "teacher",
                "say",
                "æn",
                "--ipa",
                "--voice",
                "af_one:0.7,am_two:0.3",
                "-o",
                out[0],
                "--json",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == out[0] and report["seconds"] == pytest.approx(
        soundfile.info(out[0]).duration, abs=1e-3
    )
    assert (
        main(["teacher", "pair", "æn", "--ipa", "--voice", "af_one", "--to", "am_two", "-o", *out])
        == 0
    )
    first, second = (soundfile.read(path)[0] for path in out)
    assert first.shape == second.shape and relative(first, second) > 0.01
    assert main(["teacher", "say", "æn", "--ipa", "--voice", "nobody", "-o", out[0]]) == 2
    capsys.readouterr()
    (tmp_path / "texts.tsv").write_text(
        "speaker\ttranscript\nen\tan old man in a den\nde\twas ist das hier nun\n"
    )
    arguments = [
        str(tmp_path / "corpus"),
        "--texts",
        str(tmp_path / "texts.tsv"),
        "--count",
        "1",
        "--skip",
        "de",
        "--engine",
        "torch",
        "--json",
    ]
    assert main(["teacher", "generate", *arguments]) == 0
    assert (
        json.loads(capsys.readouterr().out)["made"] == 1
        and (tmp_path / "corpus" / "00000.npz").exists()
    )


def test_texts_come_from_lines_or_tables(tmp_path: Path) -> None:
    from rtvc.cli.teacher import read_texts

    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert read_texts(tmp_path / "a.txt", None) == ["one", "two"]
    (tmp_path / "a.tsv").write_text('speaker\ttext\nen\t"quoted\nde\tzwei\nen\t\n')
    assert read_texts(tmp_path / "a.tsv", "de") == ['"quoted']
    (tmp_path / "b.tsv").write_text("x\ty\n1\t2\n")
    for name, message in (
        ("b.tsv", "expected a column transcript or text"),
        ("absent.txt", "cannot be read"),
    ):
        with pytest.raises(TextError, match=message):
            read_texts(tmp_path / name, None)
