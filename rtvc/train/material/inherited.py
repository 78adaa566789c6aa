"""How a converter of the second generation begins as the first one's, whose decoder has learnt for
hours already."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP, WINDOW
from rtvc.layers.contract import offline
from rtvc.layers.conv import Conv
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.dial import DialConverter
from rtvc.models.streaming.model import StreamingConverter
from rtvc.train.material.unit_batches import analysed, energies_of, told_ahead
from rtvc.train.stage import Batch

RIDGE = 1e-3
"""What is added to the inputs' variance, as a share of its mean."""


def take_matching(module: nn.Module, source: nn.Module) -> None:
    """Copies the weights of another module where name and shape agree, and leaves the others as
    they are."""
    theirs = source.state_dict()
    ours = module.state_dict()
    module.load_state_dict(
        ours
        | {
            name: theirs[name]
            for name in ours
            if name in theirs and ours[name].shape == theirs[name].shape
        }
    )


class Pair(NamedTuple):
    """Frames of the same moments: what a convolution reads, (B, C, T), and what it should answer,
    (B, H, T)."""

    read: Tensor
    answer: Tensor


def first_answers(
    first: StreamingConverter, wave: Tensor, log_f0: Tensor, voiced: Tensor, fall: int
) -> tuple[Tensor, int]:
    """What the first convolution of its decoder answers to a wave (B, N).

    Args:
        first: the first generation.
        wave: (B, N).
        log_f0: of frames whose window peaks `fall` samples before their end, (B, T).
        voiced: of the same frames, (B, T).
        fall: samples.

    Returns:
        The answers (B, H, T - s) to the moments of those frames but the last s, at most half a
        frame beside them, and s.
    """
    mel = analysed(first.analysis, wave)[:, :BANDS]
    late = round((WINDOW // 2 - fall) / HOP)
    right = first.encoder.latency
    loudness = energy_of(mel)
    energies = torch.cat([loudness, torch.roll(loudness, -right, -1)], 1)
    kept = mel.shape[-1] - late
    read = first.decoder.read(
        offline(first.encoder, mel)[..., late:],
        log_f0[:, :kept],
        voiced[:, :kept],
        energies[..., late:],
    )
    return offline(first.decoder.inputs, read)[..., : kept - right], late + right


def fit_convolution(layer: Conv, pairs: Iterable[Pair], warm: int) -> float:
    """Gives a causal convolution the weights that answer best in the sense of least squares.

    Args:
        layer: its weight and bias are replaced.
        pairs: batches of what it reads and should answer.
        warm: frames at the beginning of each that do not count.

    Returns:
        The share of the answers' variance that it explains; 0, and nothing is changed, where there
        are no pairs.
    """
    size = layer.kernel * layer.inputs + 1
    covariance = torch.zeros(size, size, dtype=torch.float64)
    product = torch.zeros(size, layer.outputs, dtype=torch.float64)
    square, mean, count = 0.0, torch.zeros(layer.outputs, dtype=torch.float64), 0
    for read, answer in pairs:
        frames = read.mT.double().cpu()  # (B, T, C)
        taps = [frames[:, tap : frames.shape[1] - layer.past + tap] for tap in range(layer.kernel)]
        x = torch.cat([*taps, torch.ones_like(taps[0][..., :1])], -1)[:, warm:].flatten(0, 1)
        y = answer.mT.double().cpu()[:, layer.past + warm :].flatten(0, 1)
        covariance += x.mT @ x
        product += x.mT @ y
        square, mean, count = square + float(y.square().sum()), mean + y.sum(0), count + len(y)
    if not count:
        return 0.0
    ridge = RIDGE * covariance.diagonal()[:-1].mean()
    ridges = torch.full((size,), float(ridge), dtype=torch.float64)
    ridges[-1] = 0
    solution = torch.linalg.solve(covariance + ridges.diag(), product)
    error = square - 2 * (solution * product).sum() + (solution * (covariance @ solution)).sum()
    variance = square - float((mean.square() / count).sum())
    with torch.no_grad():
        layer.weight.copy_(solution[:-1].T.reshape(layer.outputs, layer.kernel, layer.inputs))
        if layer.bias is not None:
            layer.bias.copy_(solution[-1])
    return 1 - float(error) / variance


def inherit_inputs(
    model: DialConverter, first: StreamingConverter, batches: Iterable[Batch], warm: int
) -> float:
    """Gives the first layer of the decoder, which reads another content, the weights by which it
    answers as the first generation's does; what follows has learnt already.

    Args:
        model: whose encoder has learnt; every setting of its dial is heard in turn.
        first: the first generation.
        batches: of stage `joint`, on the model's device.
        warm: frames at the beginning of their rows that do not count.

    Returns:
        As `fit_convolution`; 0 where the two decoders' layers are not of one size, or there is no
        batch.
    """
    settings = model.encoder.lookaheads
    if model.decoder.inputs.outputs != first.decoder.inputs.outputs:
        return 0.0
    first = first.to(next(model.parameters()).device)

    def pairs() -> Iterator[Pair]:
        for index, batch in enumerate(batches):
            wave, log_f0, voiced = (batch[name] for name in ("wave", "log_f0", "voiced"))
            lookahead = settings[index % len(settings)]
            mel = analysed(model.analysis, wave)[:, :BANDS]
            (content,) = model.encoder.contents(mel, (lookahead,))
            soon, heard = (told_ahead(x, lookahead) for x in (log_f0, voiced))
            read = model.decoder.read(content, soon, heard, energies_of(mel, lookahead))
            answers, cut = first_answers(first, wave, log_f0, voiced, model.config.encoder.fall)
            kept = read.shape[-1] - max(cut, lookahead)
            yield Pair(read[..., :kept], answers[..., :kept])

    with torch.no_grad():
        return fit_convolution(model.decoder.inputs, pairs(), warm)
