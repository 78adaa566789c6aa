"""Reading recordings for training: order as a function of the step, caches, cutting, and what
happens to corrupt files."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rtvc.data.cache import Cache, key_of
from rtvc.data.dataset import Corpus, padded, piece
from rtvc.data.manifest import Entry
from rtvc.data.order import Order
from rtvc.data.seeds import derive, generator, numpy_generator
from rtvc.data.symbols import BOUNDARY, SYMBOLS, decode, encode
from rtvc.errors import AudioError, TrainingError


def corpus(folder: Path, count: int = 4, cache: Cache | None = None) -> Corpus:
    entries = []
    for k in range(count):
        wave = 0.3 * np.sin(np.arange(24_000 + 2_400 * k) * 0.05 * (k + 1))
        soundfile.write(folder / f"{k}.wav", wave, 24_000)
        entries.append(
            Entry(folder / f"{k}.wav", "ab"[k % 2], len(wave) / 24_000, 16_000 if k else 24_000)
        )
    return Corpus(entries, cache)


def test_seeds_name_independent_streams() -> None:
    assert derive(1, "a", 2) == derive(1, "a", 2) != derive(1, "a", 3)
    assert derive(0, "x") != derive(1, "x") and 0 <= derive(3, "y") < 2**63
    assert torch.equal(
        torch.rand(3, generator=generator(5, 1)), torch.rand(3, generator=generator(5, 1))
    )
    assert (
        numpy_generator(5, 1).random()
        == numpy_generator(5, 1).random()
        != numpy_generator(5, 2).random()
    )


def test_every_recording_once_an_epoch() -> None:
    rng = np.random.default_rng(0)
    order = Order(rng.uniform(1, 10, 37).tolist(), ["s"] * 37, 4, seed=7, bucket=3)
    first, second = (
        [n for index in range(10 * epoch, 10 * epoch + 10) for n in order(index)]
        for epoch in (0, 1)
    )
    assert (
        sorted(first)[:3]
        and set(first) == set(second) == set(range(37))
        and len(first) == 40
        and first != second
    )
    again = Order(order.seconds.tolist(), ["s"] * 37, 4, seed=7, bucket=3)
    assert [again(17), again(3)] == [order(17), order(3)], (
        "a function of the index alone, in any order"
    )
    assert Order(order.seconds.tolist(), ["s"] * 37, 4, seed=8, bucket=3)(0) != order(0)


def test_buckets_bring_similar_lengths_together() -> None:
    lengths = np.random.default_rng(0).uniform(1, 10, 400).tolist()

    def spread(bucket: int) -> float:
        order = Order(lengths, ["s"] * 400, 8, 0, bucket=bucket)
        return float(np.mean([np.ptp([lengths[n] for n in order(i)]) for i in range(50)]))

    assert spread(50) < 0.3 < 3 < spread(1)


def test_balance_hears_speakers_equally() -> None:
    speakers = ["many"] * 90 + ["few"] * 10
    share = {}
    for balance in (0.5, 1.0):
        order = Order([2.0] * 100, speakers, 10, 0, balance=balance)
        drawn = [speakers[n] for i in range(400) for n in order(i)]
        share[balance] = drawn.count("few") / len(drawn)
    assert share[1.0] == pytest.approx(0.5, abs=0.03) and share[0.5] == pytest.approx(
        0.25, abs=0.03
    )


def test_waves_are_read_once_and_survive_in_the_disk_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corpus(tmp_path, cache=Cache(tmp_path / "cache"))
    wave = data.wave(1)
    assert wave.shape == (26_400,) and wave.abs().max() == pytest.approx(0.3, abs=1e-3)
    monkeypatch.setattr("rtvc.data.dataset.read", lambda path: pytest.fail("decoded again"))
    assert torch.equal(data.wave(1), wave)
    fresh = Corpus(data.entries, Cache(tmp_path / "cache"))
    assert torch.equal(fresh.wave(1), wave)
    (file,) = (tmp_path / "cache").rglob("*.npy")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(pytest.fail.Exception):
        Corpus(data.entries, Cache(tmp_path / "cache")).wave(1)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    data = corpus(tmp_path)
    before = key_of(data.entries[0].path, "x")
    soundfile.write(data.entries[0].path, np.ones(15_000) * np.sin(np.arange(15_000)), 24_000)
    assert key_of(data.entries[0].path, "x") != before and len(data.wave(0)) == 15_000


def test_memory_is_bounded() -> None:
    cache = Cache(megabytes=0.5)
    for k in range(20):
        cache.get(str(k), lambda: np.zeros(2**16, np.int8))
    assert cache.size <= 2**19 and list(cache.kept) == [str(k) for k in range(12, 20)]
    cache.get("12", lambda: pytest.fail("was there"))
    assert list(cache.kept)[-1] == "12"
    big = cache.get("big", lambda: np.zeros(2**20, np.int8))
    assert big.nbytes == 2**20 and "big" not in cache.kept


def test_a_full_disk_only_slows_the_cache_down(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = Cache(tmp_path / "file" / "below", megabytes=0)
    assert cache.get("ab", lambda: np.arange(3)).tolist() == [0, 1, 2]


def test_labels_are_cached_by_name(tmp_path: Path) -> None:
    data = corpus(tmp_path)
    assert data.labels(0, "length", lambda wave: np.array([len(wave)])).tolist() == [24_000]
    assert data.labels(0, "length", lambda wave: pytest.fail("made again")).tolist() == [24_000]
    assert data.labels(0, "other", lambda wave: np.array([1])).tolist() == [1]


def test_corrupt_files_are_replaced_reported_once_and_the_same_way(tmp_path: Path) -> None:
    data = corpus(tmp_path, 6)
    data.entries[2].path.write_text("this was audio")
    data.entries[3].path.unlink()
    picks = [data.usable(n, 11, lambda k: (k, len(data.wave(k)))) for n in (0, 2, 3, 2, 3)]
    assert picks[0][0] == 0 and {2, 3}.isdisjoint(k for k, _ in picks) and picks[1:3] == picks[3:5]
    fresh = Corpus(data.entries)
    assert fresh.usable(3, 11, lambda k: (k, len(fresh.wave(k)))) == picks[2], (
        "no matter what was met before"
    )
    remarks = data.remarks()
    assert (
        len(remarks) == 2
        and "2.wav\t" in remarks[0]
        and "cannot be read" in remarks[0]
        and "not there" in remarks[1]
    )
    assert data.remarks() == []


def test_nothing_but_corrupt_files_ends_the_run(tmp_path: Path) -> None:
    data = corpus(tmp_path, 3)

    def refuse(number: int) -> int:
        raise AudioError(f"no {number}")

    with pytest.raises(TrainingError, match="twenty recordings"):
        data.usable(0, 0, refuse)
    with pytest.raises(TrainingError, match="no recording is left"):
        Corpus([])


def test_open_selects(tmp_path: Path) -> None:
    corpus(tmp_path)
    (tmp_path / "m.tsv").write_text(
        "path\tspeaker\n" + "".join(f"{k}.wav\ts{k}\n" for k in range(4))
    )
    data = Corpus.open(tmp_path / "m.tsv", accept=lambda entry: entry.speaker != "s1")
    assert (
        data.speakers == ["s0", "s2", "s3"]
        and data.of_speaker["s3"] == [2]
        and data.speaker_index["s2"] == 1
    )
    with pytest.raises(TrainingError, match=r"m\.tsv"):
        Corpus.open(tmp_path / "m.tsv", accept=lambda entry: False)
    assert corpus(tmp_path).tell_bandwidths([0, 2]).tolist() == [24_000.0, 16_000.0]


def test_pieces_and_padding() -> None:
    wave = torch.arange(10.0)
    cut, start = piece(wave, 4, generator(0))
    assert cut.tolist() == wave[start : start + 4].tolist()
    assert {piece(wave, 9, generator(k))[1] for k in range(20)} == {0, 1}
    short, start = piece(wave, 12, generator(0))
    assert start == 0 and short.tolist() == [*wave.tolist(), 0, 0]
    batch, lengths = padded([torch.ones(2, 3), torch.ones(2, 5)], multiple=4)
    assert batch.shape == (2, 2, 8) and lengths.tolist() == [3, 5] and batch[0].sum() == 6


def test_symbols() -> None:
    assert len(SYMBOLS) == 178
    tokens = encode("həlˈoʊ ɹ€")
    assert tokens[0] == tokens[-1] == BOUNDARY and decode(tokens) == "həlˈoʊ ɹ"
    with pytest.raises(TrainingError, match="expected IPA"):
        encode("€")
