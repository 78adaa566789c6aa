"""Style diffusion: preconditioning, loss and sampler around the denoiser.

Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models";
StyleTTS 2, section 3.2.2.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.models.styletts2.denoiser import StyleDenoiser
from rtvc.models.styletts2.source import Draws

HIDE_TEXT = 0.1
"""Share of rows whose text training leaves out, so that guidance can tell what text adds."""


def karras_schedule(
    steps: int, lowest: float = 1e-4, highest: float = 3.0, rho: float = 9.0
) -> list[float]:
    """Noise levels from `highest` to `lowest`, denser towards the low end; the defaults are those
    of StyleTTS 2."""
    if steps < 2:
        raise ValueError(f"expected at least 2 steps, got {steps}")
    top, bottom = highest ** (1 / rho), lowest ** (1 / rho)
    return [(top + step / (steps - 1) * (bottom - top)) ** rho for step in range(steps)]


class KarrasDiffusion(nn.Module):
    """The denoiser between scalings that keep its input and its target at unit variance.

    Args:
        net: the denoiser.
        deviation: standard deviation of the styles.
    """

    def __init__(self, net: StyleDenoiser, deviation: float = 0.2) -> None:
        super().__init__()
        self.net, self.deviation = net, deviation

    def denoise(
        self,
        noisy: Tensor,
        sigma: Tensor,
        text: Tensor,
        style: Tensor | None,
        guidance: float = 1.0,
        hide_text: Tensor | None = None,
    ) -> Tensor:
        """noisy (B, 1, C) at noise levels sigma (B,), text and style as `StyleDenoiser` takes them
        -> clean (B, 1, C)."""
        level = sigma[:, None, None]
        power = level.square() + self.deviation**2
        predicted: Tensor = self.net(
            noisy * power.rsqrt(), sigma.log() / 4, text, style, guidance, hide_text
        )
        return (
            noisy * self.deviation**2 / power + predicted * level * self.deviation * power.rsqrt()
        )


class StyleDiffusion(nn.Module):
    """Samples a pair of styles that fits a text, and learns to.

    The denoiser appears under two names in the authors' checkpoints, and does so here.
    """

    def __init__(self, denoiser: StyleDenoiser | None = None, deviation: float = 0.2) -> None:
        super().__init__()
        self.unet = StyleDenoiser() if denoiser is None else denoiser
        self.diffusion = KarrasDiffusion(self.unet, deviation)
        self.channels = self.unet.channels

    def forward(
        self, styles: Tensor, text: Tensor, reference: Tensor | None, draws: Draws | None = None
    ) -> Tensor:
        """The training loss.

        Args:
            styles: (B, C), acoustic and prosodic style, what to sample.
            text: (B, L, F).
            reference: (B, S), acoustic and prosodic style of another recording of the speaker.
            draws: noise and noise levels; torch's global generator if None.

        Returns:
            Scalar, weighted so that every noise level counts alike.
        """
        draws = Draws() if draws is None else draws
        deviation = self.diffusion.deviation
        sigma = (draws.normal((len(styles),), styles) - 3.0).exp()
        clean = styles[:, None]
        noisy = clean + sigma[:, None, None] * draws.normal(tuple(clean.shape), clean)
        hidden = draws.uniform((len(styles),), styles) < HIDE_TEXT
        denoised = self.diffusion.denoise(noisy, sigma, text, reference, hide_text=hidden)
        error = F.mse_loss(denoised, clean.expand_as(denoised), reduction="none").mean((1, 2))
        return (error * (sigma.square() + deviation**2) / (sigma * deviation).square()).mean()

    @torch.no_grad()
    def sample(
        self,
        text: Tensor,
        reference: Tensor | None,
        steps: int = 5,
        guidance: float = 1.0,
        draws: Draws | None = None,
    ) -> Tensor:
        """Draws styles by ancestral DPM-Solver-2 steps along the Karras schedule.

        Args:
            text: (B, L, F).
            reference: (B, S) styles of the speaker's reference, None for a model of a single
                speaker.
            steps: noise levels to pass; 5 to 10 do.
            guidance: 1 or more, how hard to listen to the text.
            draws: torch's global generator if None.

        Returns:
            (B, C): the first half is acoustic, the second prosodic.
        """
        draws = Draws() if draws is None else draws
        shape = (len(text), 1, self.channels)
        levels = karras_schedule(steps)

        def slope(x: Tensor, level: float) -> Tensor:
            sigma = x.new_full((len(x),), level)
            return (x - self.diffusion.denoise(x, sigma, text, reference, guidance)) / level

        x = levels[0] * draws.normal(shape, text)
        for level, after in pairwise(levels):
            fresh = math.sqrt(after**2 * (level**2 - after**2) / level**2)
            down = math.sqrt(after**2 - fresh**2)
            middle = (level + down) / 2
            halfway = x + slope(x, level) * (middle - level)
            x = x + slope(halfway, middle) * (down - level) + draws.normal(shape, text) * fresh
        return x[:, 0]
