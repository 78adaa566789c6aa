"""Recordings as tensors: decoding at 24 kHz, caching, cutting, and stepping over what turns out to
be corrupt."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtvc.audio.check import AudioWarning
from rtvc.audio.mel import SAMPLE_RATE
from rtvc.audio.recording import read
from rtvc.data.cache import Array, Cache, key_of
from rtvc.data.manifest import Entry, read_manifest
from rtvc.data.order import Order, Replacing
from rtvc.errors import AudioError, TrainingError


class Corpus(Replacing):
    """Recordings of a manifest. What cannot be read is remembered in `remarks` and replaced by
    another recording."""

    def __init__(self, entries: Sequence[Entry], cache: Cache | None = None) -> None:
        super().__init__()
        if not entries:
            raise TrainingError(
                "no recording is left to train on: widen the limits, or look at the manifest"
            )
        self.entries = list(entries)
        self.cache = cache or Cache()
        self.speakers = sorted({entry.speaker for entry in self.entries})
        self.speaker_index = {speaker: number for number, speaker in enumerate(self.speakers)}
        self.of_speaker: dict[str, list[int]] = {speaker: [] for speaker in self.speakers}
        for number, entry in enumerate(self.entries):
            self.of_speaker[entry.speaker].append(number)
        self.files = [entry.path for entry in self.entries]

    @classmethod
    def open(
        cls,
        manifest: Path,
        *,
        cache: Path | None = None,
        megabytes: float = 512.0,
        accept: Callable[[Entry], bool] | None = None,
    ) -> "Corpus":
        """The recordings of a manifest that are accepted.

        Args:
            manifest: .tsv or .jsonl.
            cache: folder for decoded recordings and labels.
            megabytes: of decoded recordings kept in memory.
            accept: whether a recording is wanted; all are if None.
        """
        entries = [entry for entry in read_manifest(manifest) if accept is None or accept(entry)]
        if not entries:
            raise TrainingError(
                f"no recording of {manifest} is left to train on: look at its texts and lengths"
                " with `rtvc data show`"
            )
        return cls(entries, Cache(cache, megabytes))

    def order(self, batch: int, seed: int, balance: float = 0.0, bucket: int = 1) -> Order:
        """The order of this corpus's recordings, see `Order`."""
        return Order(
            [entry.seconds for entry in self.entries],
            [entry.speaker for entry in self.entries],
            batch,
            seed,
            balance,
            bucket,
        )

    def wave(self, number: int) -> Tensor:
        """A whole recording, (N,) float32 at 24 kHz.

        Raises:
            AudioError: it cannot be read or used.
        """
        path = self.entries[number].path
        try:
            key = key_of(path, "wave", SAMPLE_RATE)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{path} is not there ({reason})") from error
        return torch.from_numpy(
            self.cache.get(key, lambda: self._decode(path)).astype(np.float32) / 32767
        )

    @staticmethod
    def _decode(path: Path) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)
            samples = read(path).clamp(-1, 1)
        return (samples * 32767).round().to(torch.int16).numpy()

    def labels(self, number: int, name: str, make: Callable[[Tensor], Array]) -> Array:
        """Something costly made of a whole recording, cached under `name`, which must change when
        `make` does."""
        return self.cache.get(
            key_of(self.entries[number].path, "labels", name), lambda: make(self.wave(number))
        )

    def tell_bandwidths(self, numbers: Sequence[int]) -> Tensor:
        """(B,) Hz, twice the highest frequency present in each recording."""
        return torch.tensor([float(self.entries[number].bandwidth_rate) for number in numbers])


def piece(wave: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """A random piece of `samples`, (N,) -> (samples,), zeros behind a wave that is shorter; and
    where it starts."""
    spare = len(wave) - samples
    if spare <= 0:
        return torch.nn.functional.pad(wave, (0, -spare)), 0
    start = int(torch.randint(spare + 1, (), generator=generator))
    return wave[start : start + samples], start


def padded(tensors: Sequence[Tensor], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Rows (…, T_i) -> (B, …, T) with zeros behind the shorter ones, T a multiple of `multiple`,
    and the lengths (B,)."""
    lengths = torch.tensor([tensor.shape[-1] for tensor in tensors])
    longest = -(-int(lengths.max()) // multiple) * multiple
    return (
        torch.stack([torch.nn.functional.pad(t, (0, longest - t.shape[-1])) for t in tensors]),
        lengths,
    )
