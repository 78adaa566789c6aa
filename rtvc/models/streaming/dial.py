"""The converter with a latency dial: waveform in, waveform out, `y, state = model(x, voice,
state)`."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.layers.contract import Delay, State
from rtvc.layers.limiter import Limiter
from rtvc.layers.norm import Statistics
from rtvc.models.loading import fingerprint
from rtvc.models.streaming.analysis import BANDS, PITCH_BINS, Analysis, AnalysisState, audible_bands
from rtvc.models.streaming.decoder import Decoder, DecoderState
from rtvc.models.streaming.encoder import (
    BlockNumbers,
    Channels,
    ContentEncoder,
    Dilations,
    EncoderConfig,
    Taps,
)
from rtvc.models.streaming.pitch import PitchNet
from rtvc.models.streaming.prosody import Prosody, ProsodyState
from rtvc.models.streaming.style import STYLE, ProsodyHead, StyleEncoder, reference_of
from rtvc.models.streaming.timbre import WIDTH, Memory, ReferenceTokens, StyleTokens


class DialConfig(BaseModel):
    """Sizes of the converter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderConfig = EncoderConfig()
    pitch_hidden: Channels = 192
    pitch_dilations: Dilations = (1, 2, 4, 8)
    pitch_bins: int = Field(default=160, ge=2, le=1024)
    pitch_highest: float = Field(default=1100.0, gt=100, le=1200)
    """Hz: sung notes reach 1,000, and the analysis shows the network sound up to 1,200."""
    decoder_hidden: Channels = 384
    decoder_kernel: Taps = 3
    decoder_dilations: Dilations = (1, 2, 4, 1, 2, 4)
    statistics: Statistics = "frame"
    timbre: BlockNumbers = ()
    """Numbers of the decoder's blocks that cross attention to the voice's tokens follows, counted
    from 1."""
    tokens: int = Field(default=16, ge=1, le=256)
    """Tokens pooled from a reference; as many more come from its style."""
    phase_bins: int = Field(default=0, ge=0, le=301)
    """Lowest bins of the harmonic filter whose phase is free, 40 Hz apart."""
    acoustic_hidden: Channels = 256
    prosodic_hidden: Channels = 128


def ahead_of(lookahead: int) -> int:
    """Frames by which the decoder is told melody and energy before it speaks them, at a setting of
    the dial: one, where it waits for one."""
    return min(1, lookahead)


def pitch_net(config: DialConfig) -> PitchNet:
    """The pitch network of a converter of this size."""
    c = config
    return PitchNet(PITCH_BINS, c.pitch_hidden, 3, c.pitch_dilations, c.pitch_bins, c.pitch_highest)


class DialState(NamedTuple):
    """Everything a session carries."""

    analysis: AnalysisState
    energy: Tensor
    content: State
    pitch: State
    melody: Tensor
    prosody: ProsodyState
    decoder: DecoderState
    limiter: Tensor


class DialConverter(nn.Module):
    """The streaming converter. Its latency is a setting: `set_lookahead` before a session begins.

    Attributes:
        acoustic_size: A, numbers in an acoustic style: the style vector, and behind it the tokens
            of the reference, flat.
    """

    sample_rate = SAMPLE_RATE
    hop = HOP

    def __init__(self, config: DialConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or DialConfig()
        self.analysis = Analysis(c.encoder.fall)
        self.encoder = ContentEncoder.of(audible_bands(), c.encoder)
        self.pitch = pitch_net(c)
        self.prosody = Prosody()
        self.decoder = Decoder(
            c.encoder.content,
            c.decoder_hidden,
            c.decoder_kernel,
            c.decoder_dilations,
            c.statistics,
            timbre=c.timbre,
            tokens=2 * c.tokens,
            phase_bins=c.phase_bins,
        )
        self.limiter = Limiter(SAMPLE_RATE)
        self.affine = nn.Linear(STYLE, self.decoder.style_size)
        self.targets = ProsodyHead()
        self.acoustic = StyleEncoder(audible_bands(), c.acoustic_hidden)
        self.prosodic = StyleEncoder(audible_bands() + 2, c.prosodic_hidden)
        self.reference_tokens = ReferenceTokens(c.acoustic_hidden, c.tokens) if c.timbre else None
        self.style_tokens = StyleTokens(c.tokens) if c.timbre else None
        self.memory = Memory(len(c.timbre)) if c.timbre else None
        self.acoustic_size = STYLE * (1 + (c.tokens if c.timbre else 0))
        self.set_lookahead(self.encoder.lookahead)

    @property
    def space(self) -> str:
        """The style space, `dial-` and a name for the weights that make styles and tokens of a
        reference: other weights give numbers that mean nothing here."""
        makers = (self.acoustic, self.prosodic, self.reference_tokens)
        return f"dial-{fingerprint(part for part in makers if part is not None)[:8]}"

    @property
    def lookahead(self) -> int:
        """Frames that the dial is set to."""
        return self.encoder.lookahead

    @property
    def ahead(self) -> int:
        """See `ahead_of`."""
        return ahead_of(self.lookahead)

    def set_lookahead(self, frames: int) -> None:
        """Sets the dial to one of the encoder's settings; states of another setting no longer fit.

        Raises:
            ValueError: no such setting.
        """
        self.encoder.set_lookahead(frames)
        # What the source says comes out of the synthesis 1.5 frames later. The pitch network
        # speaks half a frame ahead, and the other frame is there wherever the dial waits for one.
        self.late_energy, self.late_melody = Delay(1, frames), Delay(2, frames - self.ahead)
        self.late_melody.like = self.late_melody.like.double()  # as PitchNet tells it
        # A frame is complete `fall` samples after its peak, and the decoder completes the samples
        # before the peak.
        self.latency = self.config.encoder.fall + frames * HOP

    def initial(self, batch: int) -> DialState:
        """The state before the first sample, for `batch` sessions."""
        return DialState(
            self.analysis.initial(batch),
            self.late_energy.initial(batch),
            self.encoder.initial(batch),
            self.pitch.initial(batch),
            self.late_melody.initial(batch),
            self.prosody.initial(batch),
            self.decoder.initial(batch),
            self.limiter.initial(batch),
        )

    def decoding(self, acoustic: Tensor) -> Tensor:
        """acoustic (B, A) -> what the decoder needs of a voice: the memory of its tokens, every
        scale and shift (B, M + S)."""
        style = acoustic[:, :STYLE]
        scales: Tensor = self.affine(style)
        if self.memory is None or self.style_tokens is None:
            return scales
        # A style from elsewhere, without a recording, has the tokens of silence.
        given = F.pad(acoustic[:, STYLE:], (0, self.acoustic_size - acoustic.shape[1]))
        tokens = given.unflatten(-1, (-1, WIDTH))
        return torch.cat([self.memory(torch.cat([tokens, self.style_tokens(style)], 1)), scales], 1)

    def condition(
        self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Tensor:
        """acoustic (B, A) and prosodic (B, 128) -> (B, V): the prosody targets and all that the
        decoder needs.

        Args:
            acoustic: timbre: the style, and behind it the tokens of the reference, if there are any
                (B, 128).
            prosodic: pitch register and range, energy range.
            pitch: semitones added to the pitch.
            prosody: 0 keeps the source's register and range, 1 takes the voice's.
        """
        controls = self.targets.controls(prosodic, pitch, prosody)
        return torch.cat([controls, self.decoding(acoustic)], 1)

    def forward(self, x: Tensor, voice: Tensor, state: DialState) -> tuple[Tensor, DialState]:
        """x (B, 1, N) at 24 kHz, N a multiple of `hop`; voice (B, V) -> y (B, 1, N), `latency`
        samples late."""
        features, analysis = self.analysis(x, state.analysis)
        mel = features[:, :BANDS]
        content, encoder = self.encoder(mel, state.content)
        # Pitch and energy know a frame as soon as it is heard; they wait for the frame's content,
        # melody for that of the frame before.
        melody, pitch = self.pitch(features[:, BANDS:], state.pitch)
        melody, late_melody = self.late_melody(melody, state.melody)
        # The next frame's energy comes along, too: the decoder may hear an onset one frame before
        # it speaks it.
        known = energy_of(mel)
        late, late_energy = self.late_energy(known, state.energy)
        frames = torch.cat([state.energy.to(known.dtype), known], -1)
        soon = frames.narrow(-1, self.ahead, known.shape[-1])
        energy = torch.cat([late, soon], 1)
        (log_f0, loudness), prosody = self.prosody(
            melody[:, 0], melody[:, 1], late[:, 0], voice[:, : Prosody.TARGETS], state.prosody
        )
        energy = energy + (loudness - late[:, 0])[:, None]
        wave, decoder = self.decoder(
            content, log_f0, melody[:, 1], energy, voice[:, Prosody.TARGETS :], state.decoder
        )
        wave, limiter = self.limiter(wave, state.limiter)
        return wave, DialState(
            analysis, late_energy, encoder, pitch, late_melody, prosody, decoder, limiter
        )

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """A reference recording (B, 1, N), N a multiple of `hop` -> acoustic (B, A) and prosodic
        style (B, 128)."""
        features, _ = self.analysis(wave, self.analysis.initial(len(wave)))
        melody, _ = self.pitch(features[:, BANDS:], self.pitch.initial(len(wave)))
        return self.styles_of(features[:, :BANDS], melody)

    def styles_of(self, mel: Tensor, melody: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, M, T) and `PitchNet`'s output (B, 2, T) -> acoustic (B, A) and prosodic style (B,
        128)."""
        shown = reference_of(mel, melody)
        style, frames = self.acoustic.with_frames(shown.acoustic, shown.mask)
        prosodic = self.prosodic(shown.prosodic, shown.mask)
        if self.reference_tokens is None:
            return style, prosodic
        tokens = self.reference_tokens(frames, shown.mask).flatten(1)
        return torch.cat([style, tokens], 1), prosodic
