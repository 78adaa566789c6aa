"""The streaming converter: waveform in, waveform out, `y, state = model(x, voice, state)`.

Its grid of time, in samples at 24 kHz (HOP = 300 is 12.5 ms), for mel frame 3, centred on 900:

    input       0    300   600   900   1200  1500  1800
                |-----|-----|-----|-----|-----|-----|
    mel               [=========window=========]        whole once sample 1500 is in
    content, F0                                      *  and with `right` = 1 frame more, 1800
    filters                 |  |  |                     two a frame, a STEP of 150 apart
    synthesis            [=====SIZE=====]               windows of 600, one every STEP,
                      [=====SIZE=====]                  overlap; the last that covers a sample
    output                  |-----|                     completes it: 600..900, nothing later

So sample 900 leaves when 1800 is in: `latency` = 900 samples, 37.5 ms, of which 2 HOP are the half
of the mel window that lies after its centre, and `right` * HOP is the encoder's look-ahead.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.layers.contract import Delay, State
from rtvc.layers.limiter import Limiter
from rtvc.layers.norm import Statistics
from rtvc.models.streaming.analysis import BANDS, PITCH_BINS, Analysis, AnalysisState, audible_bands
from rtvc.models.streaming.content import CONTENT, ContentEncoder
from rtvc.models.streaming.decoder import Decoder, DecoderState
from rtvc.models.streaming.pitch import F0_BINS, F0_MAX, PitchNet
from rtvc.models.streaming.prosody import Prosody, ProsodyState
from rtvc.models.streaming.style import STYLE, ProsodyHead, StyleEncoder, reference_of

Channels = Annotated[int, Field(ge=1, le=4096)]
Taps = Annotated[int, Field(ge=1, le=63)]
Dilation = Annotated[int, Field(ge=1, le=1024)]
Dilations = Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=64)]


class StreamingConfig(BaseModel):
    """Sizes of the streaming model. The defaults are those of the shipped weights, the bounds what
    any file may ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content_hidden: Channels = 384
    content_kernel: Taps = 3
    content_dilations: Dilations = (1, 2, 4, 8, 16, 1, 2, 4, 8, 16)
    right: int = Field(default=1, ge=0, le=64)
    """Mel frames of look-ahead, 12.5 ms each."""
    pitch_hidden: Channels = 192
    pitch_dilations: Dilations = (1, 2, 4, 8)
    pitch_bins: int = Field(default=F0_BINS, ge=2, le=1024)
    pitch_highest: float = Field(default=F0_MAX, gt=100, le=1200)
    """Hz: singing needs 1,100, with 160 bins; the analysis shows the network sound up to 1,200."""
    decoder_hidden: Channels = 384
    decoder_kernel: Taps = 3
    decoder_dilations: Dilations = (1, 2, 4, 1, 2, 4)
    statistics: Statistics = "frame"
    acoustic_hidden: Channels = 256
    prosodic_hidden: Channels = 128


def pitch_net(config: StreamingConfig) -> PitchNet:
    """The pitch network of a streaming model of this size."""
    c = config
    return PitchNet(PITCH_BINS, c.pitch_hidden, 3, c.pitch_dilations, c.pitch_bins, c.pitch_highest)


class ConverterState(NamedTuple):
    """Everything a session carries."""

    analysis: AnalysisState
    now: Tensor
    content: State
    pitch: State
    prosody: ProsodyState
    decoder: DecoderState
    limiter: Tensor


class StreamingConverter(nn.Module):
    """The first generation, with one latency. Implements
    `rtvc.models.streaming.interface.Converter`."""

    sample_rate = SAMPLE_RATE
    hop = HOP
    space = "stream"

    def __init__(self, config: StreamingConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or StreamingConfig()
        self.analysis = Analysis()
        self.encoder = ContentEncoder(
            audible_bands(), c.content_hidden, c.content_kernel, c.content_dilations, c.right
        )
        self.pitch = pitch_net(c)
        self.now = Delay(BANDS, c.right)
        self.prosody = Prosody()
        self.decoder = Decoder(
            CONTENT, c.decoder_hidden, c.decoder_kernel, c.decoder_dilations, c.statistics
        )
        self.limiter = Limiter(SAMPLE_RATE)
        self.affine = nn.Linear(STYLE, self.decoder.style_size)
        self.targets = ProsodyHead()
        self.acoustic = StyleEncoder(audible_bands(), c.acoustic_hidden)
        self.prosodic = StyleEncoder(audible_bands() + 2, c.prosodic_hidden)
        # A window reaches 600 samples past its centre, and the synthesis needs no sample beyond a
        # frame's centre.
        self.latency = 2 * HOP + c.right * HOP

    def initial(self, batch: int) -> ConverterState:
        """The state before the first sample, for `batch` sessions."""
        return ConverterState(
            self.analysis.initial(batch),
            self.now.initial(batch),
            self.encoder.initial(batch),
            self.pitch.initial(batch),
            self.prosody.initial(batch),
            self.decoder.initial(batch),
            self.limiter.initial(batch),
        )

    def decoding(self, acoustic: Tensor) -> Tensor:
        """acoustic (B, 128) -> every scale and shift of the decoder (B, S)."""
        scales: Tensor = self.affine(acoustic)
        return scales

    def condition(
        self, acoustic: Tensor, prosodic: Tensor, *, pitch: float = 0.0, prosody: float = 1.0
    ) -> Tensor:
        """acoustic and prosodic (B, 128) -> (B, V): every scale and shift of the decoder, and the
        prosody targets.

        Args:
            acoustic: timbre.
            prosodic: pitch register and range, energy range.
            pitch: semitones added to the pitch.
            prosody: 0 keeps the source's register and range, 1 takes the voice's.
        """
        controls = self.targets.controls(prosodic, pitch, prosody)
        return torch.cat([controls, self.decoding(acoustic)], 1)

    def forward(
        self, x: Tensor, voice: Tensor, state: ConverterState
    ) -> tuple[Tensor, ConverterState]:
        """x (B, 1, N) at 24 kHz, N a multiple of `hop`; voice (B, V) -> y (B, 1, N), `latency`
        samples late."""
        features, analysis = self.analysis(x, state.analysis)
        mel = features[:, :BANDS]
        content, encoder = self.encoder(mel, state.content)
        pitch, pitch_state = self.pitch(features[:, BANDS:], state.pitch)
        # The content lags by the encoder's look-ahead, so the mel of the same moment is waited for.
        # The newest mel comes along: the decoder may hear an onset one frame before it speaks it.
        current, now = self.now(mel, state.now)
        energy = torch.cat([energy_of(current), energy_of(mel)], 1)
        # Pitch and energy move into the voice's register and range; the difference between the two
        # energies, which says where the sound is going, stays as it was.
        (log_f0, loud), prosody = self.prosody(
            pitch[:, 0], pitch[:, 1], energy[:, 0], voice[:, : Prosody.TARGETS], state.prosody
        )
        energy = energy + (loud - energy[:, 0])[:, None]
        wave, decoder = self.decoder(
            content, log_f0, pitch[:, 1], energy, voice[:, Prosody.TARGETS :], state.decoder
        )
        # Last, so that nothing that anything before it says can leave full scale.
        wave, limiter = self.limiter(wave, state.limiter)
        return wave, ConverterState(analysis, now, encoder, pitch_state, prosody, decoder, limiter)

    def styles(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """A reference recording (B, 1, N), N a multiple of `hop` -> acoustic and prosodic style,
        (B, 128) each."""
        features, _ = self.analysis(wave, self.analysis.initial(len(wave)))
        mel = features[:, :BANDS]
        pitch, _ = self.pitch(features[:, BANDS:], self.pitch.initial(len(wave)))
        return self.styles_of(mel, pitch)

    def styles_of(self, mel: Tensor, pitch: Tensor) -> tuple[Tensor, Tensor]:
        """mel (B, M, T) and `PitchNet`'s output (B, 2, T) -> acoustic and prosodic style, (B, 128)
        each."""
        reference = reference_of(mel, pitch)
        return (
            self.acoustic(reference.acoustic, reference.mask),
            self.prosodic(reference.prosodic, reference.mask),
        )
