"""Units: clusters of a recogniser's inner layers, the classes that content is trained to tell
apart.

A network that regresses a recogniser's features averages what it is not sure of, and sounds so; one
that classifies their clusters keeps the alternatives apart (soft units: van Niekerk et al. 2022, "A
Comparison of Discrete and Soft Speech Units", section 3).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rtvc.data.cache import Array
from rtvc.errors import CheckpointError, TrainingError
from rtvc.files import write
from rtvc.tensorfile import opened

FORMAT = "rtvc-units"
LAYERS = (4, 6)
"""Layers of Whisper base's encoder, counted from 1, that are clustered."""
CLUSTERS = 500
ROUNDS = 25
"""Of k-means; the distance falls by less than 0.1 % in the last."""
LARGEST_FILE = 1 << 26
"""Bytes of a codebook, 64 MiB: two layers of 500 clusters take 2 MB."""
EVERY = 3
"""Every so-many-th frame of a recording is used to find the clusters: neighbours say nearly the
same."""

Listen = Callable[[Array], Tensor]
"""A recording (N,) at 24 kHz -> layers (L, T, C) at 50 Hz."""


class Codebook:
    """The clusters of several layers.

    Attributes:
        mean, deviation: (L, C) of every layer; distances are taken of normalised features.
        centroids: (L, K, C) of normalised features.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, centroids: Tensor) -> None:
        self.mean, self.deviation, self.centroids = mean, deviation, centroids

    def units(self, features: Tensor) -> Tensor:
        """features (L, T, C) -> the nearest cluster of every frame, (L, T) int64."""
        x = (features - self.mean[:, None]) / self.deviation[:, None]
        return nearest(x, self.centroids)

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        from safetensors.torch import save

        tensors = {"mean": self.mean, "deviation": self.deviation, "centroids": self.centroids}
        note = {"format": FORMAT, "layers": ",".join(map(str, LAYERS))}
        write(path, save({name: t.contiguous() for name, t in tensors.items()}, note))

    @classmethod
    def load(cls, path: Path) -> "Codebook":
        """Reads what `save` wrote.

        Raises:
            CheckpointError: it is something else.
        """
        names = ("mean", "deviation", "centroids")
        try:
            with opened(path, largest=LARGEST_FILE) as file:
                described = file.described
                if file.metadata.get("format") != FORMAT or set(described) != set(names):
                    raise CheckpointError(f"expected the format {FORMAT}")
                mean, _, centroids = (described[name].shape for name in names)
                fitting = len(mean) == 2 and len(centroids) == 3
                if (
                    not fitting
                    or described["deviation"].shape != mean
                    or (centroids[0], centroids[2]) != tuple(mean)
                ):
                    raise CheckpointError(
                        f"expected (L, C), (L, C) and (L, K, C), got"
                        f" {', '.join(str(tuple(described[name].shape)) for name in names)}"
                    )
                tensors = file.read()
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} is no codebook of units ({error}): `rtvc data codebook` makes one"
            ) from error
        if not all(tensors[name].isfinite().all() for name in names):
            raise CheckpointError(f"{path} holds NaN or infinity: make it again")
        return cls(*(tensors[name].float() for name in names))


def nearness(x: Tensor, centroids: Tensor) -> Tensor:
    """x (…, T, C), centroids (…, K, C) -> (…, T, K), the higher the nearer: minus half the squared
    distance, without |x|^2, which is the same for every cluster."""
    return x @ centroids.mT - centroids.square().sum(-1)[..., None, :] / 2


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """x (L, T, C), centroids (L, K, C) -> the nearest one's number, (L, T) int64."""
    return nearness(x, centroids).argmax(-1)


def cluster(frames: Sequence[Tensor], clusters: int = CLUSTERS, seed: int = 0) -> Codebook:
    """K-means over (L, T, C) pieces of several recordings, random frames as the first centroids.

    Raises:
        TrainingError: fewer frames than clusters.
    """
    features = torch.cat(list(frames), 1)
    layers, count, _ = features.shape
    if count < clusters:
        raise TrainingError(
            f"expected at least {clusters} frames of speech, got {count}: name more recordings"
        )
    mean, deviation = features.mean(1), features.std(1).clamp_min(1e-3)
    x = (features - mean[:, None]) / deviation[:, None]
    generator = torch.Generator().manual_seed(seed)
    centroids = x[:, torch.randperm(count, generator=generator)[:clusters]].clone()
    for _ in range(ROUNDS):
        owner = nearest(x, centroids)
        for layer in range(layers):
            sums = torch.zeros_like(centroids[layer]).index_add_(0, owner[layer], x[layer])
            sizes = torch.bincount(owner[layer], minlength=clusters)
            # an empty cluster starts again at a random frame
            fresh = x[layer, torch.randint(count, (clusters,), generator=generator)]
            centroids[layer] = torch.where(
                sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], fresh
            )
    return Codebook(mean, deviation, centroids)


def codebook_of(recordings: Iterable[Array], listen: Listen, clusters: int = CLUSTERS) -> Codebook:
    """The codebook of some recordings, (N,) float32 at 24 kHz each."""
    return cluster([listen(wave)[:, ::EVERY].half().float() for wave in recordings], clusters)
