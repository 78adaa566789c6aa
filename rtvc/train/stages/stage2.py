"""Stage `stage2`: the mel encoder learns to stand in for text, alignment and text encoder, by what
the decoder makes of it.

Source: StyleTTS-VC, section III-B (knowledge transfer) and the authors' `train_second.py`. What is
matched is the frozen decoder's output under the style of a random reference, never the content
itself.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from rtvc.audio.energy import energy
from rtvc.models.vocoder import GriffinLim
from rtvc.train.config import RunConfig
from rtvc.train.losses.losses import (
    adversarial,
    discriminator_losses,
    frame_cross_entropy,
    generator_losses,
    masked_l1,
)
from rtvc.train.losses.shares import share
from rtvc.train.material import components
from rtvc.train.stage import Batch, Samples
from rtvc.train.stages.text_stage import TextConfig, TextStage


class Weights(components.OpposedWeights):
    """Factors of the losses; `mel` is the L1 to the teacher's output under the reference's style
    (L_en)."""

    phonemes: float = 1.0
    """Frame-wise cross entropy (L_MI)."""
    cycle: float = 1.0
    adversarial_cycle: float = 1.0


class Stage2Config(TextConfig):
    """Configuration of stage `stage2`."""

    weights: Weights = Weights()
    synthetic_share: float = Field(default=0.5, ge=0, le=1)
    """How often the mel encoder hears the teacher's conversion into a random other voice instead of
    the recording."""


FROZEN = ("text_aligner", "text_encoder", "style_encoder", "decoder", "pitch_extractor")


class Stage2(TextStage):
    """Trains `mel_encoder`, `linear_proj` and `discriminator`; everything of stage 1 is frozen."""

    config_type: ClassVar[type[RunConfig]] = Stage2Config

    def __init__(self, config: Stage2Config) -> None:
        super().__init__(config)
        self.config = config
        self.text_aligner = components.text_aligner(config.model)
        self.pitch_extractor = components.pitch_extractor(config.model)
        self.mel_encoder = components.mel_encoder(config.model)
        self.linear_proj = components.linear_projection(config.model)
        self.discriminator = components.discriminator(config.model, len(self.data.corpus.speakers))
        self.modules = {
            name: getattr(self, name)
            for name in (*FROZEN, "mel_encoder", "linear_proj", "discriminator")
        }
        self.phases = {
            "discriminator": ("discriminator",),
            "generator": ("mel_encoder", "linear_proj"),
        }
        self.averaged = (*FROZEN, "mel_encoder", "linear_proj")

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """What the teacher makes of a batch: pieces of content, labels, curves, styles, and its
        outputs in both voices."""
        aligned = self.aligned(batch)
        labels = torch.where(
            aligned.hard.sum(1) > 0, (batch["tokens"][..., None] * aligned.hard.long()).sum(1), -1
        )
        content, mel, (labels,) = self.pieces(batch, aligned, labels)
        f0, loudness = self.pitch_extractor(mel[:, None]).f0, energy(mel.float())[:, 0]
        own, style = (
            self.style_encoder(mel[:, None]),
            self.style_encoder(batch["reference"][:, None]),
        )
        target = self.decoder(content, f0, loudness, style)
        source = mel
        if float(torch.rand(())) < self.config.synthetic_share:
            source = self.decoder(content, f0, loudness, style.roll(1, 0))
        return {
            "labels": labels,
            "source": source,
            "f0": f0,
            "energy": loudness,
            "own": own,
            "style": style,
            "target": target,
            "rebuilt": self.decoder(content, f0, loudness, own),
        }

    def forward(self, batch: Batch) -> Batch:
        """The teacher's and the student's outputs; computed once a step, for both phases."""
        if "output" not in batch:
            batch.update(self.teach(batch))
            batch["content"] = self.mel_encoder(batch["source"])
            batch["output"] = self.decoder(
                batch["content"], batch["f0"], batch["energy"], batch["style"]
            )
        return batch

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """The discriminator tells the teacher's outputs from the student's; the student matches
        them, spells, and comes back."""
        components.differentiable([self.pitch_extractor])
        self.forward(batch)
        target, output = batch["target"], batch["output"]
        speaker, reference_speaker = batch["speaker"], batch["reference_speaker"]
        if phase == "discriminator":
            return discriminator_losses(self.discriminator, target, output, reference_speaker)
        f0, loudness = self.pitch_extractor(output[:, None]).f0, energy(output.float())[:, 0]
        back = self.decoder(self.mel_encoder(output), f0, loudness, batch["own"])
        verdict, features = generator_losses(self.discriminator, target, output, reference_speaker)
        spelled = self.linear_proj(batch["content"])
        known = batch["labels"] >= 0
        return {
            "mel": masked_l1(output, target),
            "phonemes": frame_cross_entropy(spelled, batch["labels"]),
            "cycle": masked_l1(back, batch["rebuilt"]),
            "adversarial": verdict,
            "adversarial_cycle": adversarial(self.discriminator(back[:, None], speaker)[0], True),
            "features": features,
            "metric/phoneme_accuracy": share(spelled.argmax(1) == batch["labels"], known),
        }

    def validate(self, step: int) -> dict[str, float]:
        """L1 between teacher and student on held-out recordings."""
        batch = self.held_out_batch()
        if batch is None:
            return {}
        batch = self.forward(batch)
        return {"mel": masked_l1(batch["output"], batch["target"]).item()}

    def sample(self, step: int) -> Samples:
        """A piece, the teacher's conversion and the student's; sound by Griffin-Lim."""
        batch = self.forward(self.first())
        shown = {"heard": "source", "target": "target", "made": "output"}
        mels = {name: batch[key][0] for name, key in shown.items()}
        vocoder = GriffinLim().to(batch["output"].device)
        return Samples({name: vocoder(mel[None].float())[0, 0] for name, mel in mels.items()}, mels)
