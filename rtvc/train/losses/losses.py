"""The losses of StyleTTS-VC and StyleTTS 2, as functions of tensors. Every one is a mean, so that
factors do not depend on the batch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAU = 0.04
"""Where the truncated relativistic loss is cut off (StyleTTS 2, appendix)."""


def masked_l1(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference; mask broadcasts against output and target, and counts where it is
    not 0."""
    difference = (output.float() - target.float()).abs()
    if mask is None:
        return difference.mean()
    mask = mask.float().expand_as(difference)
    return (difference * mask).sum() / mask.sum().clamp_min(1.0)


def adversarial(logits: Tensor, real: bool) -> Tensor:
    """Binary cross entropy of a discriminator's logits (B,) against one verdict, as in StarGAN v2
    and StyleTTS-VC."""
    logits = logits.float().clamp(-10, 10)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def r1(logits: Tensor, real: Tensor) -> Tensor:
    """Half the mean squared gradient norm of a discriminator at real data (Mescheder et al. 2018).

    logits (B,) of real (B, ...), which requires a gradient.
    """
    (gradient,) = torch.autograd.grad(logits.float().sum(), real, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


def discriminator_losses(
    discriminator: nn.Module, real: Tensor, fake: Tensor, speaker: Tensor
) -> dict[str, Tensor]:
    """What a discriminator of mels (B, 80, T) of speakers (B,) minimises: its verdicts on both, and
    `r1`."""
    real = real.detach().clone().requires_grad_()
    verdict = discriminator(real[:, None], speaker)[0]
    on_fake = discriminator(fake.detach()[:, None], speaker)[0]
    return {
        "discriminator": adversarial(verdict, True) + adversarial(on_fake, False),
        "r1": r1(verdict, real),
    }


def generator_losses(
    discriminator: nn.Module, real: Tensor, fake: Tensor, speaker: Tensor
) -> tuple[Tensor, Tensor]:
    """What the generator of `fake` minimises: the discriminator's verdict, and the distance of its
    features from those of `real`."""
    with torch.no_grad():
        real_features = discriminator(real[:, None], speaker)[1]
    verdict, features = discriminator(fake[:, None], speaker)
    return adversarial(verdict, True), feature_matching(real_features, features)


def feature_matching(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Sum over a discriminator's layers of the mean absolute difference; no gradient into
    `real`."""
    return torch.stack(
        [(r.detach().float() - f.float()).abs().mean() for r, f in zip(real, fake, strict=True)]
    ).sum()


def lsgan_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of several discriminators (Mao et al. 2017): real towards 1, fake towards
    0."""
    return torch.stack(
        [
            (r.float() - 1).square().mean() + f.float().square().mean()
            for r, f in zip(real, fake, strict=True)
        ]
    ).sum()


def lsgan_generator(fake: Sequence[Tensor]) -> Tensor:
    """Least-squares loss of the generator: fake towards 1."""
    return torch.stack([(f.float() - 1).square().mean() for f in fake]).sum()


def relativistic(real: Sequence[Tensor], fake: Sequence[Tensor], *, generator: bool) -> Tensor:
    """Truncated pointwise relativistic least-squares loss (Li et al. 2022), for the discriminators
    or for the generator.

    Each score is (B, ...). Only pairs that are on the wrong side of the median difference count, up
    to TAU.
    """
    total = []
    for r, f in zip(real, fake, strict=True):
        difference = (f - r if generator else r - f).float()
        middle = difference.median()
        wrong = difference < middle
        loss = ((difference - middle).square() * wrong).sum() / wrong.sum().clamp_min(1)
        total.append(TAU - F.relu(TAU - loss))
    return torch.stack(total).sum()


def ctc(logits: Tensor, frames: Tensor, tokens: Tensor, lengths: Tensor, blank: int = 0) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), per token.

    Args:
        logits: (B, T, V).
        frames: (B,) frames of each row.
        tokens: (B, L) int64 without blanks inside a row's length.
        lengths: (B,) tokens of each row.
        blank: the token of "nothing".
    """
    scores = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(scores, tokens, frames, lengths, blank, zero_infinity=True)


def token_cross_entropy(logits: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Cross entropy of a decoder under teacher forcing, mean over rows of each row's mean.

    logits (B, L, V), tokens (B, L), lengths (B,).
    """
    each = F.cross_entropy(logits.float().mT, tokens, reduction="none")
    inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return ((each * inside).sum(1) / lengths.clamp_min(1)).mean()


def frame_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Phoneme loss of the mel encoder, L_MI: logits (B, V, T), labels (B, T) int64, negative where
    unknown."""
    known = (labels >= 0).sum().clamp_min(1)
    return (
        F.cross_entropy(logits.float(), labels.clamp_min(-1), ignore_index=-1, reduction="sum")
        / known
    )


def monotonic(soft: Tensor, hard: Tensor) -> Tensor:
    """L1 between attention and its monotonic version, times 10 as the authors scale it: (B, L, T)
    both."""
    return 10 * (soft.float() - hard.float()).abs().mean()


def f0_shape(output: Tensor, target: Tensor) -> Tensor:
    """L1 of F0 curves, each divided by its mean, so that only the melody counts: (B, T) in Hz
    both."""
    output, target = output.float(), target.float()
    output = output / output.mean(-1, keepdim=True).clamp_min(1.0)
    return (output - target / target.mean(-1, keepdim=True).clamp_min(1.0)).abs().mean()


def energy_band(output: Tensor, target: Tensor, free: float = 0.5) -> Tensor:
    """Squared difference of log energies (B, T) beyond `free`: loudness may differ a little between
    speakers."""
    return F.relu((output.float() - target.float()).abs() - free).square().mean()


def durations(logits: Tensor, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Duration losses of StyleTTS 2: L1 of the expected duration, and cross entropy of its binary
    digits.

    Args:
        logits: (B, L, longest); the sum of their sigmoids is the duration.
        frames: (B, L) true duration of each token, in frames.
        lengths: (B,) tokens of each row; the first and last are boundaries, whose length does not
            count for the L1.
    """
    logits, frames = logits.float(), frames.float()
    place = torch.arange(logits.shape[1], device=logits.device)
    inside = place < lengths[:, None]
    inner = inside & (place > 0) & (place < lengths[:, None] - 1)
    expected = logits.sigmoid().sum(-1)
    l1 = ((expected - frames).abs() * inner).sum() / inner.sum().clamp_min(1)
    digits = (torch.arange(logits.shape[2], device=logits.device) < frames[..., None]).float()
    each = F.binary_cross_entropy_with_logits(logits, digits, reduction="none").mean(-1)
    return l1, (each * inside).sum() / inside.sum().clamp_min(1)
