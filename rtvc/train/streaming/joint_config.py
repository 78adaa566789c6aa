"""The configuration of stage `joint`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rtvc.models.streaming.dial import DialConfig
from rtvc.train.config import Section
from rtvc.train.material.recogniser import RecogniserConfig
from rtvc.train.material.unit_batches import SpeechRun
from rtvc.train.streaming.stream_config import DiscriminatorConfig, Span


class Weights(Section):
    """Factors of the losses; 0 switches a loss, and what only it needs, off."""

    stft: float = 1.0
    """Spectral distance of the reconstruction."""
    mel: float = 0.0
    """Relative distance of log-mels of the reconstruction (StyleTTS 2, section 3.2.2, with 5)."""
    units: float = 0.2
    """Cross entropy of the encoder's own heads: its content stays what the units say."""
    phonemes: float = 0.1
    """The same of phonemes; 0 also leaves them out of `words`, as a judge that never learnt them
    asks for."""
    prosody: float = 0.3
    """L1 of the voice's F0 mean and deviation and energy deviation."""
    words: float = 0.5
    """Cross entropy of the judge's units and phonemes on what is said in a foreign voice."""
    listening: float = 0.5
    """L1 of the judge's inner layers between that and the source."""
    heard: float = 0.0
    """Cross entropy of units between that and the source, as Whisper itself hears both; needs
    `codebook`."""
    foreign: float = 0.5
    """Cosine distance of the speaker embeddings of what is said in a foreign voice and of that
    voice's reference."""
    leak: float = 0.0
    """Cosine of the speaker embeddings of what is said in a foreign voice and of the source's
    speaker; 0 only logs it."""
    adversarial: float = 0.0
    """Least-squares verdict of the discriminators on both, their mean; 3 goes with `mel` at 5."""
    features: float = 1.0
    """Feature matching of the reconstruction; counts only with `adversarial`."""
    discriminator: float = 1.0


class PatchesConfig(Section):
    """The discriminators of log-mels."""

    resolutions: tuple[tuple[Span, Span, Span], ...] = ((512, 128, 80), (1024, 256, 140))
    """FFT and window, hop and bands of each, in samples; none, no such discriminators."""
    channels: int = Field(default=16, ge=1, le=2048)


class JointConfig(SpeechRun):
    """Configuration of stage `joint`."""

    model: DialConfig = DialConfig()
    judge: RecogniserConfig = RecogniserConfig()
    codebook: Path = Path("data/units/codebook.safetensors")
    """Of the units, for `weights.heard`."""
    weights: Weights = Weights()
    noise: float = Field(default=0.5, ge=0)
    """Noise on the content in training, as a share of its size."""
    reference_frames: int = Field(default=256, ge=16)
    """Length of the style reference, 12.5 ms a frame."""
    gain: tuple[float, float] = (-1.0, 0.7)
    """Range of the log-gain of pieces, which the decoder must follow; limited so that nothing
    clips."""
    cycle: float = Field(default=0.0, ge=0, le=1)
    """Share of the rows that are restored from the content of their own conversion."""
    without_tokens: float = Field(default=0.1, ge=0, le=1)
    """Share of voices that the decoder knows by their style alone, as those that come without a
    recording."""
    grow: bool = True
    """Whether decoder and style encoders begin as those of the first generation, where names
    and shapes agree."""
    melody: Literal["labels", "network"] = "labels"
    """Where the decoder's F0 and voicing come from: the labels, or the pitch network that speaks
    for them in a stream, which `[[init]]` then has to give (`rtvc train melody`)."""
    inherit_batches: int = Field(default=24, ge=0)
    """Batches on which the decoder's first layer, then, learns to read this content; 0 lets it
    begin at random."""
    train_encoder: bool = True
    train_styles: bool = True
    foreign_from: int = Field(default=0, ge=0)
    """Steps before which the decoder is too rough for a judge."""
    adversarial_from: int = Field(default=0, ge=0)
    """Steps in which only the discriminators learn from what they see."""
    head_start: int = Field(default=100, ge=0)
    """Steps that the discriminators learn before the converter minds them."""
    patches: PatchesConfig = PatchesConfig()
    seen: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Blocks of the judge whose outputs discriminators of features see, counted from 0; none, no
    such discriminators."""
    spectra: DiscriminatorConfig = DiscriminatorConfig(resolutions=(), channels=12, power=0.3)
    """Discriminators of spectrograms as pictures; no resolutions, no such discriminators."""
    shown: int = Field(default=32, ge=8)
    """Frames of HOP samples that these are shown of each row."""

    @property
    def needs_judge(self) -> bool:
        """Whether a loss listens by way of the judge."""
        weights = self.weights
        return bool(weights.words or weights.listening or (weights.adversarial and self.seen))

    @property
    def converts(self) -> bool:
        """Whether a loss asks what is said in a foreign voice."""
        w = self.weights
        return bool(w.words or w.listening or w.heard or w.foreign or w.leak)
