"""Kokoro-82M: PL-BERT, text encoder, prosody predictor and iSTFTNet decoder of StyleTTS 2, over
rows of different lengths."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rtvc.models.styletts2.decoder import Decoder, ISTFTNetDecoder
from rtvc.models.styletts2.generator import SLOPE, ISTFTNetGenerator
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts2.source import Draws
from rtvc.models.styletts_vc.norms import fold_weight_norm
from rtvc.models.styletts_vc.text_encoder import TextEncoder, padding_mask, run_packed
from rtvc.teacher.plbert import PLBert
from rtvc.teacher.ragged import Rows, channels_last, make_ragged, pad_rows

SAMPLES = 600
"""Samples of a 40 Hz content frame at 24 kHz."""

LEVEL = 1.5
"""Gain behind the decoder. The published ONNX graph does not divide its inverse STFT by the overlap
of the squared windows, 1.5, so that is how loud Kokoro is known; and at this level the energy
measured on its speech is, on average over a corpus, the energy that it was made from (0.1 above in
log norm, against 0.7 below without the gain)."""


CUT = 1e-4
"""Radians by which the phase's branch cut is moved away from pi."""


def phase(spectrum: Tensor) -> Tensor:
    """The angle of complex numbers, in (-pi + CUT, pi + CUT].

    The STFT's first and last frames are symmetric, so their spectra are real, but for rounding:
    where they are negative, rounding would choose between pi and -pi, and a batch would differ from
    its rows.
    """
    angle = spectrum.angle()
    return torch.where(angle < CUT - math.pi, angle + 2 * math.pi, angle)


class Plan(NamedTuple):
    """All that the decoder needs besides the acoustic style; zeros behind a row's end.

    Attributes:
        content: (B, 512, T) at 40 Hz.
        f0: (B, 2 T) Hz at 80 Hz.
        energy: (B, 2 T) log norm at 80 Hz.
        tokens: (B, T) the token spoken in each content frame, int64.
        lengths: (B,) content frames of each row, int64.
    """

    content: Tensor
    f0: Tensor
    energy: Tensor
    tokens: Tensor
    lengths: Tensor


class Kokoro(nn.Module):
    """The five components under the names of the official checkpoint, weight norm folded, for
    inference.

    Source: Li et al. 2023, "StyleTTS 2", figure 1 (inference).
    """

    def __init__(self, decoder: Decoder | None = None) -> None:
        """Args:
        decoder: another size of it; Kokoro's by default.
        """
        super().__init__()
        self.bert = PLBert()
        self.bert_encoder = nn.Linear(768, 512)
        self.predictor = ProsodyPredictor()
        self.text_encoder = TextEncoder()
        self.decoder = ISTFTNetDecoder() if decoder is None else decoder
        fold_weight_norm(self)
        self.rows = Rows()
        make_ragged(self, self.rows)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def plan(
        self,
        tokens: Sequence[Sequence[int]],
        prosodic: Tensor,
        speed: Tensor,
        durations: Sequence[Sequence[int]] | None = None,
    ) -> Plan:
        """Text and prosodic style to content, F0 and energy.

        Args:
            tokens: of each row, boundaries included.
            prosodic: (B, 128) style.
            speed: (B,) of speech; 1 is natural.
            durations: 40 Hz frames of each token, predicted if None.
        """
        ids = pad_sequence([torch.tensor(row) for row in tokens], batch_first=True).to(
            prosodic.device
        )
        sizes = torch.tensor([len(row) for row in tokens], device=ids.device)
        mask = padding_mask(sizes)
        self.rows.set(None)
        context = self.bert_encoder(self.bert(ids, mask if len(tokens) > 1 else None)).mT
        encoded = self.predictor.text_encoder(context, prosodic, sizes, mask)
        if durations is None:
            expected = self.predictor.durations(encoded, sizes).sigmoid().sum(-1) / speed[:, None]
            whole = expected.round().clamp(min=1).long()
        else:
            whole = pad_sequence([torch.tensor(row) for row in durations], batch_first=True).to(
                ids.device
            )
        owners = [torch.repeat_interleave(row) for row in whole.masked_fill(mask, 0)]
        lengths = torch.tensor([len(owner) for owner in owners], device=ids.device)
        owner = pad_sequence(owners, batch_first=True)
        behind = padding_mask(lengths)

        def spread(x: Tensor) -> Tensor:
            """(B, L, C) of tokens -> (B, T, C) of frames, zeros behind a row's end."""
            return x.gather(1, owner[..., None].expand(-1, -1, x.shape[-1])).masked_fill(
                behind[..., None], 0.0
            )

        content = spread(self.text_encoder(ids, sizes, mask).mT).mT
        f0, energy = self.curves(spread(encoded), prosodic, lengths)
        return Plan(content, f0, energy, ids.gather(1, owner).masked_fill(behind, 0), lengths)

    def curves(self, encoded: Tensor, prosodic: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`ProsodyPredictor.curves` over ragged rows: encoded (B, T, 640), prosodic (B, 128) -> F0
        and energy (B, 2 T)."""
        self.rows.set(lengths)
        f0 = energy = run_packed(self.predictor.shared, encoded, lengths).mT
        for pitch, loudness in zip(self.predictor.F0, self.predictor.N, strict=True):
            f0, energy = pitch(f0, prosodic), loudness(energy, prosodic)
        zeroed = (
            self.rows.zeroed(projection(x))
            for projection, x in ((self.predictor.F0_proj, f0), (self.predictor.N_proj, energy))
        )
        f0, energy = (x[:, 0] for x in zeroed)
        return f0, energy

    @torch.no_grad()
    def decode(self, plan: Plan, acoustic: Tensor, seeds: Sequence[int] | None) -> Tensor:
        """A plan in a voice: acoustic (B, 128) style -> waveform (B, N = 600 T) at 24 kHz, zeros
        behind a row's end.

        The decoder runs in the precision of its own weights, the harmonic source in that of
        `plan.f0`.

        Args:
            plan: from `plan`, or changed since.
            acoustic: (B, 128) style.
            seeds: one a row, for the noise of the harmonic source. Without them it has none.
        """
        generator = self.decoder.generator
        assert isinstance(generator, ISTFTNetGenerator)
        self.rows.set(plan.lengths)
        like = self.decoder.encode.norm1.fc.weight
        content, energy, style = (x.to(like.dtype) for x in (plan.content, plan.energy, acoustic))
        x = self.decoder.features(content, plan.f0.to(like.dtype), energy, style)
        draws = (
            [Draws.zeros() for _ in plan.lengths]
            if seeds is None
            else [Draws.seeded(seed) for seed in seeds]
        )
        frames: list[int] = plan.lengths.tolist()
        sources = [
            self.excitation(generator, f0[None, : 2 * length], draw)[0]
            for f0, length, draw in zip(plan.f0, frames, draws, strict=True)
        ]
        source = pad_rows(sources).to(like.dtype)
        for index in range(len(generator.ups)):
            x = self.stage(generator, index, F.leaky_relu(x, SLOPE), source, style)
        # torch's default slope here, not SLOPE: the checkpoints were trained so.
        spectrum = generator.conv_post(F.leaky_relu(x)).to(
            torch.promote_types(like.dtype, torch.float32)
        )
        return pad_rows(
            [
                self.waveform(generator, row[:, : own.shape[-1]])
                for row, own in zip(spectrum, sources, strict=True)
            ]
        )

    def stage(
        self, generator: ISTFTNetGenerator, index: int, x: Tensor, source: Tensor, style: Tensor
    ) -> Tensor:
        """`Generator.stage`, its mean over blocks taken as a running sum, which keeps the
        channels-last layout."""
        joined = generator.noise_res[index](generator.noise_convs[index](source), style)
        x = generator.ups[index](x)
        x = (
            channels_last(
                F.pad(x, (1, 0), mode="reflect") if index + 1 == len(generator.ups) else x
            )
            + joined
        )
        first, count = index * generator.blocks_a_stage, generator.blocks_a_stage
        total = sum(block(x, style) for block in generator.resblocks[first : first + count])
        assert isinstance(total, Tensor)
        return total / count

    def excitation(self, generator: ISTFTNetGenerator, f0: Tensor, draws: Draws) -> Tensor:
        """f0 (B, 2 T) Hz of whole rows -> magnitude and phase of the harmonic source, (B, 22, 120 T
        + 1)."""
        signal = generator.m_source(f0, draws)[:, 0]
        spectrum = torch.stft(
            signal,
            generator.n_fft,
            generator.hop,
            window=generator.window.to(signal),
            return_complex=True,
        )
        return torch.cat([spectrum.abs(), phase(spectrum)], 1)

    def waveform(self, generator: ISTFTNetGenerator, spectrum: Tensor) -> Tensor:
        """Log magnitude and phase of one row, (22, 120 T + 1) -> (600 T,)."""
        magnitude, phase = spectrum.chunk(2)
        window = generator.window.to(spectrum)
        return (
            torch.istft(
                torch.polar(magnitude.exp(), phase.sin()),
                generator.n_fft,
                generator.hop,
                window=window,
            )
            * LEVEL
        )
