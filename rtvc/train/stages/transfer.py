"""Stage `transfer`: the paper's mel encoder learns to stand in for text before the teacher's
decoder, for the studio model.

Source: StyleTTS-VC, section III-B (knowledge transfer). What the decoder makes of the content is
matched under the style of a random voice; here at the decoder's features, before the generator,
which costs a twentieth of the waveform. Content and phonemes of real speech are the bridge's
(`rtvc.train.streaming.bridge`), and are matched too: with the teacher's own speech among them they
are near enough to the truth to help, where an autoencoder's latent would leak the speaker.
"""

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rtvc.audio.energy import energy
from rtvc.audio.mel import HOP
from rtvc.data.augment import AugmentConfig, augment
from rtvc.data.labelled import Cut, Utterance
from rtvc.data.seeds import generator
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.content import PHONEMES
from rtvc.models.styletts2.decoder import ISTFTNetDecoder
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.losses import frame_cross_entropy
from rtvc.train.losses.shares import measured, share
from rtvc.train.material.stream_data import CLEAN, StreamRun, StreamStage, frozen, stacked
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples


class Weights(Section):
    """Factors of the losses."""

    outputs: float = 1.0
    """L1 between the decoder's features, relative to their size (L_en)."""
    content: float = 10.0
    """L1 to the content itself, whose mean size is about 0.2."""
    phonemes: float = 0.5
    """Frame-wise cross entropy (L_MI)."""


class TransferConfig(StreamRun):
    """Configuration of stage `transfer`."""

    weights: Weights = Weights()
    augment: AugmentConfig = CLEAN
    matched: int = Field(default=4, ge=1)
    """Rows of a batch whose decoder outputs are matched."""
    matched_every: int = Field(default=2, ge=1)
    """Steps between such batches: the decoder costs more than the encoder."""
    width: int = Field(default=512, ge=8, le=8192)
    """Channels of the content; smaller ones need another decoder and are for tests."""


class Transfer(StreamStage):
    """Trains `mel_encoder` and `linear_proj`; the decoder is frozen."""

    config_type: ClassVar[type[RunConfig]] = TransferConfig

    def __init__(self, config: TransferConfig, decoder: ISTFTNetDecoder | None = None) -> None:
        super().__init__(config)
        self.config = config
        if decoder is None:
            from rtvc.models.studio import kokoro_decoder

            decoder = kokoro_decoder()
        # Not among the modules: it never changes, and a checkpoint of it would be twenty times the
        # rest.
        self.decoder = frozen(decoder)
        self.mel_encoder, self.linear_proj = (
            MelEncoder(BANDS, config.width),
            LinearProjection(config.width, PHONEMES),
        )
        self.modules = {
            "analysis": self.analysis,
            "mel_encoder": self.mel_encoder,
            "linear_proj": self.linear_proj,
        }
        self.phases = {"transfer": ("mel_encoder", "linear_proj")}
        self.averaged = ("mel_encoder", "linear_proj")

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """wave and clean (N,), content (512, T / 2), phonemes (T / 2,), f0 (T,) in Hz: one row."""
        piece = Cut.draw(utterance, self.config.data.frames // 2 * 2, speed, rng)
        log_f0, voiced = piece.melody(0)
        return {
            "wave": piece.wave(),
            "clean": piece.wave(),
            "content": piece.content()[:, ::2],
            "phonemes": piece.phonemes()[::2],
            "f0": torch.exp(log_f0) * voiced,
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N) as the encoder hears it, clean (B, N), content (B, 512, T / 2), phonemes (B,
        T / 2), f0 (B, T)."""
        batch = stacked(self.rows("transfer", index, self.row))
        batch["wave"] = augment(
            batch["wave"], self.config.augment, generator(self.config.seed, "transfer", index)
        )
        return batch

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> mel (B, 80, T), frame t centred on sample t * HOP."""
        return self.analysed(wave, 0)[:, :BANDS, 1 : 1 + wave.shape[1] // HOP]

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Content, phonemes, and every `matched_every` steps the decoder's features under random
        styles."""
        content = self.mel_encoder(self.mel(batch["wave"]))
        logits = self.linear_proj(content)
        losses = {
            "content": (content.float() - batch["content"]).abs().mean(),
            "phonemes": frame_cross_entropy(logits, batch["phonemes"]),
            "metric/phonemes_right": share(
                logits.argmax(1) == batch["phonemes"], batch["phonemes"] >= 0
            ),
        }
        if step % self.config.matched_every == 0:
            losses["outputs"] = self.matched(content, batch, step)
        return losses

    def matched(self, content: Tensor, batch: Batch, step: int) -> Tensor:
        """Mean absolute difference of the decoder's features, content found against content
        labelled, over their mean size."""
        k, draw = (
            min(self.config.matched, len(content)),
            generator(self.config.seed, "styles", step),
        )
        f0 = batch["f0"][:k] * torch.exp(torch.empty(k, 1).uniform_(-0.3, 0.3, generator=draw)).to(
            content.device
        )
        style = self.style(len(f0), draw).to(content.device)
        with torch.no_grad():
            loudness = energy(self.mel(batch["clean"][:k]))[:, 0]
            target = self.decoder.features(batch["content"][:k], f0, loudness, style).float()
        output = self.decoder.features(content[:k].float(), f0, loudness, style).float()
        return (output - target).abs().mean() / target.abs().mean().clamp(min=1e-6)

    @staticmethod
    def style(rows: int, draw: torch.Generator) -> Tensor:
        """Random acoustic styles (B, 128), as large and as varied as the teacher's voices are."""
        return torch.randn(rows, 128, generator=draw) * 0.15

    def validate(self, step: int) -> dict[str, float]:
        """The same on held-out utterances, as recorded."""
        rows = self.held_out(self.row)
        if not rows:
            return {}
        with torch.no_grad():
            losses = self.losses("transfer", moved(stacked(rows), self.device()), 0)
        return measured(losses)

    def sample(self, step: int) -> Samples:
        """A piece as it is heard, and its content, found and true."""
        batch = moved(self.batch(0), self.device())
        content = self.mel_encoder(self.mel(batch["wave"][:1]))
        return Samples(
            {"heard": batch["wave"][0]},
            {"found": content[0, :128].float(), "true": batch["content"][0, :128]},
        )
