"""The causal decoder: adaptive residual blocks at the mel rate, a harmonic source, and an iSTFT
head.

The head follows the source-filter view of DDSP vocoders: the network predicts, four
half-overlapping times per window, the log-magnitude of a filter for the harmonic source and of one
for noise. The harmonic filter gets the minimum phase that belongs to its magnitude, as vocal tracts
have; both are applied in the short-time spectrum and leave by iSTFT.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.layers.blocks import AdaBlock
from rtvc.layers.contract import State
from rtvc.layers.conv import Conv
from rtvc.layers.norm import Statistics
from rtvc.layers.source import HarmonicSource, SourceState
from rtvc.layers.synthesis import Istft, Stft
from rtvc.models.streaming.pitch import F0_CENTRE, F0_SCALE
from rtvc.models.streaming.timbre import WIDTH, TimbreAttention

SIZE, STEP = 2 * HOP, HOP // 2
"""Window and hop of the synthesis, in samples: 25 ms and 6.25 ms."""
BINS = SIZE // 2 + 1
ENERGIES = 2
"""Energies that come with each frame: its own, and that of the next one where it is known."""
NOISE_FRAMES = 997
"""Length of the noise table: a prime, 6.2 s."""
ENVELOPE = 8
"""Cepstral coefficients that tilt the spectrum; those behind them shape its formants."""
RANGE = 12.0
"""Largest absolute log-magnitude of a filter."""


def minimum_phase(size: int) -> Tensor:
    """The matrix (bins, bins) from a log-magnitude to its minimum phase (real cepstrum, folded);
    float64."""
    bins = size // 2 + 1
    n = torch.arange(bins, dtype=torch.float64)
    angle = 2 * torch.pi * (n[:, None] * n % size) / size
    weight = torch.full((bins, 1), 2.0, dtype=torch.float64)
    weight[0] = weight[-1] = 1.0
    cepstrum = torch.cos(angle) * weight / size  # log-magnitude -> real cepstrum
    fold = torch.full((bins,), 2.0, dtype=torch.float64)
    fold[0] = fold[-1] = 1.0
    return (cepstrum * fold) @ -torch.sin(angle)


def fine_structure(bins: int) -> Tensor:
    """The matrix (bins, bins) from a log-magnitude to what of it the cepstral coefficients from
    `ENVELOPE` on say; float64."""
    n = torch.arange(bins, dtype=torch.float64)
    cosines = torch.cos(torch.pi * n[:, None] * n / (bins - 1))
    ends = torch.ones(bins, dtype=torch.float64)
    ends[0] = ends[-1] = 0.5
    coefficients = 2 / (bins - 1) * ends[:, None] * cosines * ends
    coefficients[:ENVELOPE] = 0
    fine: Tensor = cosines @ coefficients
    return fine


class DecoderState(NamedTuple):
    """Everything the decoder carries."""

    inputs: State
    blocks: tuple[State, ...]
    source: SourceState
    analysis: Tensor
    synthesis: Tensor
    noise: Tensor  # (B,) int64: the next row of the noise table


class Decoder(nn.Module):
    """`wave, state = decoder(content, log_f0, voicing, energy, style, state)`."""

    phase: Tensor
    table: Tensor

    def __init__(
        self,
        content: int,
        hidden: int,
        kernel: int,
        dilations: Sequence[int],
        statistics: Statistics = "frame",
        *,
        timbre: Sequence[int] = (),
        tokens: int = 0,
        phase_bins: int = 0,
    ) -> None:
        """
        Args:
            content: channels of the content.
            hidden: channels of the blocks.
            kernel: taps of their convolutions.
            dilations: one block each.
            statistics: what their norms take out.
            timbre: numbers of the blocks that an attention to the voice's tokens follows, counted
                from 1.
            tokens: how many there are.
            phase_bins: lowest bins of the harmonic filter whose phase is free to leave the minimum
                phase.
        """
        super().__init__()
        self.inputs = Conv(content + 2 + ENERGIES, hidden, 3)
        self.blocks = nn.ModuleList(AdaBlock(hidden, kernel, d, statistics) for d in dilations)
        self.norm = nn.LayerNorm(hidden)
        self.rates, self.phase_bins, self.tokens = HOP // STEP, phase_bins, tokens
        self.head = nn.Linear(hidden, 2 * self.rates * BINS)
        self.free = nn.Linear(hidden, self.rates * phase_bins) if phase_bins else None
        if self.free is not None:
            nn.init.zeros_(self.free.weight)
            nn.init.zeros_(self.free.bias)
        self.timbre = nn.ModuleDict({str(number): TimbreAttention(hidden) for number in timbre})
        self.source = HarmonicSource(SAMPLE_RATE, HOP)
        self.stft, self.istft = Stft(SIZE, STEP), Istft(SIZE, STEP)
        self.style_size = sum(block.style_size for block in self.adaptive_blocks())
        self.memory_size = len(self.timbre) * tokens * 2 * WIDTH
        generator = torch.Generator().manual_seed(20)
        noise = (
            torch.randn(NOISE_FRAMES, 2 * BINS, generator=generator, dtype=torch.float64) / 2**0.5
        )
        self.register_buffer("phase", minimum_phase(SIZE).float(), persistent=False)
        # Scaled to the spectrum that Stft gives of white noise of unit variance.
        self.register_buffer("table", (noise * STEP**0.5).float(), persistent=False)

    def adaptive_blocks(self) -> list[AdaBlock]:
        """The blocks in order, typed."""
        return [block for block in self.blocks if isinstance(block, AdaBlock)]

    def initial(self, batch: int) -> DecoderState:
        """Silence."""
        return DecoderState(
            self.inputs.initial(batch),
            tuple(block.initial(batch) for block in self.adaptive_blocks()),
            self.source.initial(batch),
            self.stft.initial(batch),
            self.istft.initial(batch),
            torch.zeros(batch, dtype=torch.int64, device=self.table.device),
        )

    def forward(
        self,
        content: Tensor,
        log_f0: Tensor,
        voicing: Tensor,
        energy: Tensor,
        voice: Tensor,
        state: DecoderState,
    ) -> tuple[Tensor, DecoderState]:
        """content (B, C, T), log_f0 and voicing (B, T), energy (B, 2, T), voice (B, M + S) -> (B,
        1, T * HOP).

        Frame t completes the samples that end at its centre. The voice is the memory of its tokens,
        where there are any, layer by layer, and behind it every scale and shift.
        """
        memory = (
            voice[:, : self.memory_size]
            .unflatten(-1, (len(self.timbre), self.tokens, -1))
            .unbind(1)
            if self.timbre
            else ()
        )
        answers, style = iter(memory), voice[:, self.memory_size :]
        x, inputs = self.inputs(self.read(content, log_f0, voicing, energy), state.inputs)
        blocks, at = [], 0
        for number, (block, old) in enumerate(
            zip(self.adaptive_blocks(), state.blocks, strict=True), 1
        ):
            x, new = block(x, style[:, at : at + block.style_size], old)
            at += block.style_size
            blocks.append(new)
            if str(number) in self.timbre:
                x = self.timbre[str(number)](x, next(answers))
        x = self.norm(x.mT)
        filters = self.precise(self.head(x))
        filters = (RANGE * torch.tanh(filters / RANGE)).reshape(
            x.shape[0], -1, 2 * BINS
        )  # (B, 2 T, harmonic and noise)
        free = (
            None
            if self.free is None
            else self.precise(self.free(x)).reshape(x.shape[0], -1, self.phase_bins)
        )
        # Source and filter: the network says how loud every frequency of the pulses and of the
        # noise is, and the pitch comes from the source alone, so that no filter can put it out of
        # tune.
        pulses, source = self.source(torch.exp(log_f0), voicing.to(filters.dtype), state.source)
        spectrum, analysis = self.stft(pulses[:, None], state.analysis)
        spectrum, noise = self.filtered(spectrum.mT, filters, state.noise, free)
        wave, synthesis = self.istft(spectrum.mT, state.synthesis)
        return wave, DecoderState(inputs, tuple(blocks), source, analysis, synthesis, noise)

    @torch.no_grad()
    def sharpen(self, strength: float) -> None:
        """Raises formants above the valleys between them, in the weights for good: a network that
        learnt by distances averages what it is not sure of, and its formants are flat.

        The harmonic filter's cepstrum is scaled by 1 + strength from coefficient `ENVELOPE` on
        (postfilter of mel-cepstral synthesis: Yoshimura et al. 2005, "Incorporating a mixed
        excitation model and postfilter into HMM-based text-to-speech synthesis"). The filter is
        linear in the head's weights but for its range, so that the head itself can take it on.
        """
        harmonic = self.head.weight.double().unflatten(0, (self.rates, 2, BINS))[:, 0]
        offset = self.head.bias.double().unflatten(0, (self.rates, 2, BINS))[:, 0]
        emphasis = torch.eye(BINS).double() + strength * fine_structure(BINS)
        weight, bias = self.head.weight.unflatten(0, (self.rates, 2, BINS)), self.head.bias
        weight[:, 0] = (emphasis @ harmonic).to(weight.dtype)
        bias.unflatten(0, (self.rates, 2, BINS))[:, 0] = (offset @ emphasis.T).to(bias.dtype)

    @staticmethod
    def read(content: Tensor, log_f0: Tensor, voicing: Tensor, energy: Tensor) -> Tensor:
        """What the first convolution reads: content (B, C, T), log_f0 and voicing (B, T), energy
        (B, 2, T) -> (B, C + 4, T)."""
        # Unvoiced frames have no F0: zero is the middle of the register, and voicing says why.
        register = (log_f0 - F0_CENTRE) * F0_SCALE * voicing
        pitch = torch.stack([register, voicing], 1).to(content.dtype)
        return torch.cat([content, pitch, energy * 0.3], 1)

    @staticmethod
    def precise(x: Tensor) -> Tensor:
        """x in float32, or in float64 where it came so."""
        return x if x.dtype == torch.float64 else x.float()

    def filtered(
        self, spectrum: Tensor, filters: Tensor, row: Tensor, free: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The source's spectrum (B, J, 2 BINS), filters (B, J, 2 BINS) and what is added to the
        phase of the lowest bins (B, J, F) -> their product with noise, and the next noise row."""
        harmonic, noise = filters.split(BINS, -1)
        magnitude, phase = torch.exp(harmonic), harmonic @ self.phase
        if free is not None:
            phase = phase + F.pad(free, (0, BINS - self.phase_bins))
        c, s = magnitude * torch.cos(phase), magnitude * torch.sin(phase)
        real, imaginary = spectrum.split(BINS, -1)
        rows = (row[:, None] + torch.arange(spectrum.shape[1], device=row.device)) % NOISE_FRAMES
        shaped = self.table[rows] * torch.exp(noise).repeat(1, 1, 2)
        voiced = torch.cat([real * c - imaginary * s, real * s + imaginary * c], -1)
        return voiced + shaped, (row + spectrum.shape[1]) % NOISE_FRAMES
