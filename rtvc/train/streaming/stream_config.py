"""The configuration of stages `stream` and `stream_joint`."""

from typing import Annotated

from pydantic import Field

from rtvc.data.augment import AugmentConfig
from rtvc.train.config import Section
from rtvc.train.material.stream_data import StreamRun

PARTS = ("decoder", "affine", "targets", "acoustic", "prosodic")
"""What the stage trains, under the names that `StreamingConverter` gives its parts."""
STYLES = ("targets", "acoustic", "prosodic")
"""Those of them that make a voice of a reference."""


class Weights(Section):
    """Factors of the losses; 0 switches a loss, and what only it needs, off."""

    stft: float = 1.0
    prosody: float = 0.3
    """L1 of the voice's F0 mean and deviation and energy deviation."""
    embedding: float = 0.5
    """Cosine distance of a linear map of the acoustic style to the speaker embedding of the
    reference."""
    consistency: float = 0.5
    """Cosine distance of the speaker embeddings of reconstruction and reference."""
    content: float = 3.0
    """L1 of the encoder to the labelled content; counts only with `train_encoder`, as the next."""
    phonemes: float = 0.1
    """Cross entropy of the encoder's phonemes."""
    matching: float = 0.0
    """Spectral distance of output matching under a foreign style; 0.3 is usual."""
    foreign: float = 0.0
    """Cosine distance of the speaker embeddings of what is said under the foreign style and of that
    style's reference."""
    adversarial: float = 0.0
    """Least-squares verdict of the discriminator; 0.1 is usual."""
    features: float = 0.2
    """Feature matching; counts only with `adversarial`."""
    discriminator: float = 1.0


Span = Annotated[int, Field(ge=1, le=1 << 16)]


class DiscriminatorConfig(Section):
    """The discriminator's sizes. The defaults are those of StyleTTS 2; a quarter of their work does
    on a CPU."""

    resolutions: tuple[tuple[Span, Span, Span], ...] = (
        (1024, 120, 600),
        (2048, 240, 1200),
        (512, 50, 240),
    )
    """FFT, hop and window of each spectrogram, in samples."""
    channels: int = Field(default=32, ge=1, le=2048)
    power: float = Field(default=1.0, gt=0, le=1)
    """To which magnitudes are raised: 0.3 is about how loud they are heard."""
    rows: int | None = Field(default=None, ge=1)
    """Rows of a batch that it judges; None: all."""


class StreamConfig(StreamRun):
    """Configuration of stage `stream`."""

    weights: Weights = Weights()
    reference_frames: int = Field(default=256, ge=16, le=100_000)
    """Length of the style reference, 12.5 ms a frame."""
    gain: tuple[float, float] = (-1.0, 0.7)
    """Range of the log-gain of pieces, which the decoder must follow; limited so that nothing
    clips."""
    labels_every: int = Field(default=4, ge=1)
    """Every so-many-th step decodes labelled content, the others what the encoder hears; 1 needs no
    encoder."""
    train_encoder: bool = False
    """Whether the encoder learns from the decoder's losses as well."""
    heard_as: AugmentConfig | None = None
    """What is done to the speech that the encoder hears; the decoder restores it as it was."""
    train_styles: bool = True
    """Whether the style encoders learn. Without, voices made before stay valid: only what the
    decoder does with them changes."""
    head_steps: int = Field(default=0, ge=0)
    """Steps in which only the map from style to speaker embedding learns from that loss: exported
    weights come without it."""
    consistency_from: int = Field(default=600, ge=0)
    """Steps before which reconstructions are too rough for speaker embeddings."""
    consistency_every: int = Field(default=2, ge=1)
    matching_from: int = Field(default=0, ge=0)
    matching_every: int = Field(default=2, ge=1)
    """Of the steps that decode what the encoder hears."""
    adversarial_from: int = Field(default=0, ge=0)
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
