"""Stage `stream_voice`: the streaming model learns to speak with one voice, from minutes of its
recordings, without text.

The whole model is shown a piece of a recording, half of the time as another speaker might have said
it (pitch and formants moved, and the pitch control moves the pitch back), and must give the
recording as it was. Decoder and affine learn; encoder, pitch and style encoders stay, so that
content and styles keep their meaning. The voice is fixed: what is learnt is what that voice sounds
like.
"""

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.spectral import BandedSTFT
from rtvc.data.dataset import Corpus, piece
from rtvc.data.effects import shift
from rtvc.models.streaming.assets import DEFAULT, load_file
from rtvc.train.config import DataConfig, RunConfig, Section
from rtvc.train.losses.speaker import SpeakerEncoder, cosine_distance
from rtvc.train.material.recorded import PieceStage
from rtvc.train.material.stream_data import frozen
from rtvc.train.stage import Batch, Samples
from rtvc.voices.voice import Voice

TRAINED = ("decoder", "affine")
"""The parts of the model that learn."""
SHIPPED = "shipped"
"""What stands for the weights that come with the package."""
LEVEL = 0.5
"""Peak of the loudest pieces: far below where the limiter begins."""
EDGE = 200.0
"""Hz below the highest frequency of a recording from which its spectrum is not believed."""


class Weights(Section):
    """Factors of the losses."""

    stft: float = 1.0
    speaker: float = 0.0
    """Cosine distance of speaker embeddings of what is made and of the recording; needs
    Resemblyzer, and makes SECS no independent measure."""


class StreamVoiceConfig(RunConfig):
    """Configuration of stage `stream_voice`."""

    data: DataConfig
    model: Path = DEFAULT
    """Weights to start from; `shipped` names those that come with the package."""
    voice: Path
    """The voice file of the person, made by that model."""
    weights: Weights = Weights()
    moved: float = Field(default=0.5, ge=0, le=1)
    """How often a piece is heard as another speaker's."""
    semitones: float = Field(default=5.0, ge=0, le=12)
    """By which pitch and formants are moved at most."""
    quieter: float = Field(default=1.0, ge=0, le=6)
    """Range of the log-gain below LEVEL."""
    warm: int = Field(default=24, ge=0, le=100_000)
    """Frames of HOP samples at the beginning of a piece that losses ignore."""

    @field_validator("model", mode="after")
    @classmethod
    def _shipped(cls, path: Path) -> Path:
        return DEFAULT if str(path) == SHIPPED else path


class StreamVoice(PieceStage):
    """Trains the parts of `TRAINED`."""

    config_type: ClassVar[type[RunConfig]] = StreamVoiceConfig
    draws = "stream_voice"

    def __init__(self, config: StreamVoiceConfig) -> None:
        super().__init__(config.data, config.seed)
        self.config = config
        with torch.inference_mode(False):
            self.model = load_file(config.model)
        self.voice = Voice.load(config.voice)
        self.stft = BandedSTFT()
        self.modules = {**dict(self.model.named_children()), "stft": self.stft}
        for name, module in self.modules.items():
            if name not in TRAINED:
                frozen(module)
        self.speaker: SpeakerEncoder | None = None
        if config.weights.speaker:
            self.speaker = frozen(SpeakerEncoder.pretrained())
            self.modules["speaker"] = self.speaker
        self.phases = {"generator": TRAINED}
        self.averaged = TRAINED
        # The model gives a sample this much later than it hears it; what comes first is warming up.
        self.latency = self.model.latency
        self.samples = round(config.data.seconds * SAMPLE_RATE) // HOP * HOP

    def pieces(self, corpus: Corpus, numbers: list[int], draw: torch.Generator) -> Batch:
        """true (B, N), source (B, N), semitones (B,) by which that was moved, cutoff (B,) in Hz."""
        rows, used = [], []
        for number in numbers:
            number, wave = corpus.usable(number, self.config.seed, lambda k: (k, corpus.wave(k)))
            rows.append(piece(wave, self.samples, draw)[0])
            used.append(number)
        true = torch.stack(rows)
        gain = torch.exp(-self.config.quieter * torch.rand(len(rows), generator=draw)) * LEVEL
        true = true * (gain / true.abs().amax(1).clamp_min(1e-3))[:, None]
        chosen = torch.rand(len(rows), generator=draw) < self.config.moved
        reach = self.config.semitones
        semitones = (2 * torch.rand(len(rows), generator=draw) - 1) * reach * chosen
        source = true.clone()
        if chosen.any():
            source[chosen] = shift(true[chosen], 2 ** (semitones[chosen] / 12)).to(true)
        bandwidth = corpus.tell_bandwidths(used) / 2
        whole = bandwidth >= SAMPLE_RATE / 2
        cutoff = torch.where(whole, bandwidth + 1, bandwidth - EDGE)
        return {"true": true, "source": source, "semitones": semitones, "cutoff": cutoff}

    def outputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the model says with the voice, and the recording, (B, M) each, aligned and without
        what warms up."""
        source, place = batch["source"], self.device()
        acoustic, prosodic = (
            style.to(place)[None] for style in (self.voice.acoustic, self.voice.prosodic)
        )
        conditions = [
            self.model.condition(acoustic, prosodic, pitch=-float(moved), prosody=0.0)
            for moved in batch["semitones"]
        ]
        y, _ = self.model(source[:, None], torch.cat(conditions), self.model.initial(len(source)))
        warm = self.config.warm * HOP
        return (
            y[:, 0, self.latency + warm :].float(),
            batch["true"][:, warm : source.shape[1] - self.latency],
        )

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Distance of spectra, and of speaker embeddings where asked."""
        output, target = self.outputs(batch)
        losses = {"stft": self.stft(output, target, batch["cutoff"])}
        if self.speaker is not None:
            with torch.no_grad():
                voice = self.speaker(target)
            losses["speaker"] = cosine_distance(self.speaker(output), voice)
        return losses

    def validate(self, step: int) -> dict[str, float]:
        """Distance of spectra on held-out pieces, the same ones each time."""
        batch = self.held_out_batch()
        if batch is None:
            return {}
        output, target = self.outputs(batch)
        return {"stft": float(self.stft(output, target, batch["cutoff"]))}

    def sample(self, step: int) -> Samples:
        """A piece, as it was heard, and what is made of it."""
        batch = self.first()
        output, target = self.outputs(batch)
        return Samples({"true": target[0], "heard": batch["source"][0], "made": output[0]})
