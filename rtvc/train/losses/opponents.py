"""Discriminators of the joint stage: what was recorded against what was made, on the judge's
features, on log-mels and on spectrograms."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rtvc.audio.mel import HOP
from rtvc.models.styletts2.discriminators import MultiResolutionDiscriminator, Verdict
from rtvc.train.losses.losses import feature_matching, lsgan_discriminator, lsgan_generator
from rtvc.train.losses.mel_patches import MelDiscriminators
from rtvc.train.losses.projected import FeatureDiscriminator
from rtvc.train.losses.prosody_targets import low_passed

STRIDE = 7
"""Frames by which the stretch that is shown to the spectra moves from step to step."""


@dataclass
class JudgedWave:
    """A wave that the decoder made or that was recorded, and how the judge hears it."""

    wave: Tensor  # (B, N)
    layers: list[Tensor]  # (B, C, T) each; empty where no loss listens

    def detached(self) -> "JudgedWave":
        """The same, without a way back for gradients."""
        return JudgedWave(self.wave.detach(), [layer.detach() for layer in self.layers])


def logits(verdicts: Sequence[Verdict]) -> list[Tensor]:
    """What the least-squares losses take of verdicts."""
    return [verdict.logits for verdict in verdicts]


def inner(verdicts: Sequence[Verdict]) -> list[Tensor]:
    """What feature matching takes of them."""
    return [layer for verdict in verdicts for layer in verdict.features]


class Opponents:
    """All kinds of discriminator, and what each side minimises (least squares: Mao et al. 2017).

    Args:
        features: sees all frames, as the judge hears them.
        patches: sees all frames.
        spectra: sees a short stretch of some rows.
        warm: frames at the beginning that nobody is shown.
        shown: frames of the stretch.
        rows: how many rows; None: all.
        seen: blocks of the judge whose outputs `features` sees.
    """

    def __init__(
        self,
        features: FeatureDiscriminator,
        patches: MelDiscriminators,
        spectra: MultiResolutionDiscriminator,
        warm: int,
        shown: int,
        rows: int | None,
        seen: Sequence[int],
    ) -> None:
        self.features, self.patches, self.spectra = features, patches, spectra
        self.warm, self.shown, self.rows, self.seen = warm, shown, rows, seen

    def verdicts(self, judged: JudgedWave, cutoff: Tensor, step: int) -> list[Verdict]:
        """What the discriminators say of a wave whose spectrum is believed below cutoff (B,) Hz."""
        verdicts: list[Verdict] = self.features(
            [judged.layers[k][..., self.warm :] for k in self.seen]
        )
        if len(self.patches.discriminators):
            whole = low_passed(judged.wave[:, self.warm * HOP :], cutoff)
            verdicts += self.patches(whole[:, None])
        if len(self.spectra.discriminators):
            frames = judged.wave.shape[1] // HOP - self.warm
            start = (self.warm + step * STRIDE % max(1, frames - self.shown)) * HOP
            rows = slice(self.rows)
            piece = low_passed(judged.wave[rows, start : start + self.shown * HOP], cutoff[rows])
            verdicts += self.spectra(piece[:, None])
        return verdicts

    def loss(
        self, recorded: JudgedWave, fakes: Sequence[JudgedWave], cutoff: Tensor, step: int
    ) -> Tensor:
        """What the discriminators minimise: what was recorded against everything that was made."""
        real = logits(self.verdicts(recorded, cutoff, step))
        losses = [
            lsgan_discriminator(real, logits(self.verdicts(each.detached(), cutoff, step)))
            for each in fakes
        ]
        return torch.stack(losses).mean()

    def convinced(
        self, recorded: JudgedWave, fakes: Sequence[JudgedWave], cutoff: Tensor, step: int
    ) -> dict[str, Tensor]:
        """What the converter minimises: their verdict on everything that it made, and the distance
        of their features of the first, a reconstruction, from those of the recording."""
        verdicts = [self.verdicts(each, cutoff, step) for each in fakes]
        with torch.no_grad():
            real = self.verdicts(recorded, cutoff, step)
        fooled = torch.stack([lsgan_generator(logits(each)) for each in verdicts]).mean()
        return {
            "adversarial": fooled / len(real),
            "features": feature_matching(inner(real), inner(verdicts[0])) / len(real),
        }
