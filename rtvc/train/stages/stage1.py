"""Stage `stage1`: text encoder, style encoder, decoder and discriminator, with the transferable
monotonic aligner.

Source: StyleTTS-VC, section III-B (first stage) and the authors' `train_first.py`.
"""

from collections.abc import Collection
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rtvc.audio.energy import energy
from rtvc.audio.mel_distance import mel_band_limit
from rtvc.models.vocoder import GriffinLim
from rtvc.train.config import RunConfig
from rtvc.train.losses.losses import (
    discriminator_losses,
    energy_band,
    f0_shape,
    generator_losses,
    masked_l1,
    monotonic,
    token_cross_entropy,
)
from rtvc.train.material import components
from rtvc.train.stage import Batch, Samples
from rtvc.train.stages.text_stage import TextConfig, TextStage


class Weights(components.OpposedWeights):
    """Factors of the losses."""

    monotonic: float = 1.0
    s2s: float = 1.0
    style: float = 1.0
    f0: float = 1.0
    energy: float = 1.0
    content: float = 1.0
    cycle: float = 1.0


class Stage1Config(TextConfig):
    """Configuration of stage `stage1`."""

    weights: Weights = Weights()
    aligner_from: int = Field(default=12_190, ge=0)
    """Step from which the aligner and the pitch extractor train along (10 epochs of VCTK in batches
    of 32)."""
    conversion_from: int = -1_219
    """Step from which F0, energy, content and cycle of conversions count and the aligner rests;
    negative counts from the end."""


class Stage1(TextStage):
    """Trains `text_encoder`, `style_encoder`, `decoder`, `discriminator`, and adapts `text_aligner`
    and `pitch_extractor`."""

    config_type: ClassVar[type[RunConfig]] = Stage1Config

    def __init__(self, config: Stage1Config) -> None:
        super().__init__(config)
        self.config = config
        self.discriminator = components.discriminator(config.model, len(self.data.corpus.speakers))
        self.text_aligner = components.text_aligner(config.model)
        self.pitch_extractor = components.pitch_extractor(config.model)
        exported = ("text_encoder", "style_encoder", "decoder", "text_aligner", "pitch_extractor")
        self.modules = {name: getattr(self, name) for name in (*exported, "discriminator")}
        self.phases = {"discriminator": ("discriminator",), "generator": exported}
        self.averaged = exported
        self.conversion_from = config.conversion_from + (
            config.steps if config.conversion_from < 0 else 0
        )

    def adapts(self, step: int) -> bool:
        """Whether the aligner and the pitch extractor train in this step."""
        return self.config.aligner_from <= step < self.conversion_from

    def frozen(self, phase: str, step: int) -> Collection[str]:
        """The aligner and the pitch extractor before and after their time."""
        return () if self.adapts(step) else ("text_aligner", "pitch_extractor")

    def forward(self, batch: Batch, step: int) -> Batch:
        """Aligns, encodes, cuts pieces and decodes them; computed once a step, for both phases."""
        if "output" in batch:
            return batch
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.adapts(step)):
            aligned = self.aligned(batch)
        content, mel, _ = self.pieces(batch, aligned)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.adapts(step)):
            f0 = self.pitch_extractor(mel[:, None]).f0
        loudness = energy(mel.float())[:, 0]
        style = self.style_encoder(mel[:, None])
        output = self.decoder(content, f0, loudness, style)
        return batch | {
            "aligned": aligned,
            "content": content,
            "target": mel,
            "f0": f0,
            "energy": loudness,
            "style": style,
            "output": output,
        }

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """The discriminator's losses on real and reconstructed pieces, or everything that the
        generator minimises."""
        batch.update(self.forward(batch, step))
        target, output, speaker = batch["target"], batch["output"], batch["speaker"]
        if phase == "discriminator":
            return discriminator_losses(self.discriminator, target, output, speaker)
        verdict, features = generator_losses(self.discriminator, target, output, speaker)
        losses = {
            "mel": masked_l1(output, target, mel_band_limit(batch["bandwidth"])),
            "adversarial": verdict,
            "features": features,
        }
        if self.adapts(step):
            aligned = batch["aligned"]
            losses["s2s"] = token_cross_entropy(
                aligned.logits[:, :-1], batch["tokens"], batch["lengths"]
            )
            losses["monotonic"] = monotonic(aligned.soft, aligned.hard)
        return losses | self.conversion(batch, step)

    def conversion(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses of a conversion to the reference's style; late in the run also what must survive
        it."""
        style = self.style_encoder(batch["reference"][:, None])
        converted = self.decoder(batch["content"], batch["f0"], batch["energy"], style)
        losses = {"style": masked_l1(self.style_encoder(converted[:, None]), style)}
        if step < self.conversion_from:
            return losses
        components.differentiable([self.pitch_extractor])
        f0, loudness = self.pitch_extractor(converted[:, None]).f0, energy(converted.float())[:, 0]
        back = self.decoder(batch["content"], f0, loudness, batch["style"])
        return losses | {
            "f0": f0_shape(f0, batch["f0"]),
            "energy": energy_band(loudness, batch["energy"]),
            "content": masked_l1(
                self.text_aligner.features(converted), self.text_aligner.features(batch["target"])
            ),
            "cycle": masked_l1(back, batch["target"], mel_band_limit(batch["bandwidth"])),
        }

    def validate(self, step: int) -> dict[str, float]:
        """L1 of reconstructed held-out pieces."""
        batch = self.held_out_batch()
        if batch is None:
            return {}
        batch = self.forward(batch, step)
        limit = mel_band_limit(batch["bandwidth"])
        return {"mel": masked_l1(batch["output"], batch["target"], limit).item()}

    def sample(self, step: int) -> Samples:
        """A piece, its reconstruction, and its conversion to the reference's voice; sound by
        Griffin-Lim."""
        batch = self.forward(self.first(), step)
        converted = self.decoder(
            batch["content"],
            batch["f0"],
            batch["energy"],
            self.style_encoder(batch["reference"][:, None]),
        )
        mels = {
            "true": batch["target"][0],
            "made": batch["output"][0],
            "converted": converted[0],
            "path": batch["aligned"].hard[0].flip(0),
        }
        vocoder = GriffinLim().to(converted.device)
        return Samples(
            {name: vocoder(mels[name][None].float())[0, 0] for name in ("made", "converted")}, mels
        )
