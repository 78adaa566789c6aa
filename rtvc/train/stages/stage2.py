"""Stage `stage2`: the mel encoder learns to stand in for text, alignment and text encoder, by what
the decoder makes of it.

Source: StyleTTS-VC, section III-B (knowledge transfer) and the authors' `train_second.py`. What is
matched is the frozen decoder's output under the style of a random reference, never the content
itself.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from rtvc.audio.energy import energy
from rtvc.models.styletts_vc.text_encoder import padding_mask
from rtvc.models.vocoder import GriffinLim
from rtvc.train.config import DataConfig, RunConfig
from rtvc.train.losses.losses import (
    adversarial,
    feature_matching,
    frame_cross_entropy,
    masked_l1,
    r1,
)
from rtvc.train.losses.shares import share
from rtvc.train.material import components
from rtvc.train.material.align import align, cut
from rtvc.train.material.speech import Utterances, held_out
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples, Stage


class Weights(components.OpposedWeights):
    """Factors of the losses; `mel` is the L1 to the teacher's output under the reference's style
    (L_en)."""

    phonemes: float = 1.0
    """Frame-wise cross entropy (L_MI)."""
    cycle: float = 1.0
    adversarial_cycle: float = 1.0


class Stage2Config(RunConfig):
    """Configuration of stage `stage2`."""

    data: DataConfig
    model: components.ModelConfig = components.ModelConfig()
    weights: Weights = Weights()
    attention_over: Literal["frames", "tokens"] = "frames"
    hard_share: float = Field(default=0.5, ge=0, le=1)
    """How often the teacher's content is spread by the monotonic path rather than by soft
    attention."""
    synthetic_share: float = Field(default=0.5, ge=0, le=1)
    """How often the mel encoder hears the teacher's conversion into a random other voice instead of
    the recording."""
    longest_piece: int = Field(default=400, ge=90, le=100_000)
    """Mel frames of a piece."""


FROZEN = ("text_aligner", "text_encoder", "style_encoder", "decoder", "pitch_extractor")


class Stage2(Stage):
    """Trains `mel_encoder`, `linear_proj` and `discriminator`; everything of stage 1 is frozen."""

    config_type: ClassVar[type[RunConfig]] = Stage2Config

    def __init__(self, config: Stage2Config) -> None:
        self.config = config
        self.data = Utterances(config.data, config.seed, reference="any")
        self.valid = held_out(config.data, reference="any")
        self.text_encoder = components.text_encoder(config.model)
        self.style_encoder = components.style_encoder(config.model)
        self.decoder = components.decoder(config.model)
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

    def batch(self, index: int) -> Batch:
        """Whole utterances, see `Utterances.batch`."""
        return self.data.batch(index)

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """What the teacher makes of a batch: pieces of content, labels, curves, styles, and its
        outputs in both voices."""
        tokens, lengths = batch["tokens"], batch["lengths"]
        aligned = align(
            self.text_aligner,
            batch["mel"],
            batch["frames"],
            tokens,
            lengths,
            self.config.attention_over,
        )
        text = self.text_encoder(tokens, lengths, padding_mask(lengths, tokens.shape[1]))
        hard = float(torch.rand(())) < self.config.hard_share
        content = text @ (aligned.hard if hard else aligned.soft).to(text.dtype)
        labels = torch.where(
            aligned.hard.sum(1) > 0, (tokens[..., None] * aligned.hard.long()).sum(1), -1
        )
        half = min(int(aligned.frames.min()) - 1, self.config.longest_piece // 2)
        starts = (torch.rand(len(tokens)) * (aligned.frames.cpu() - half + 1)).long()
        (content,), (labels,), (mel,) = (
            cut(starts, half, content),
            cut(starts, half, labels),
            cut(2 * starts, 2 * half, batch["mel"]),
        )
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
            real = target.detach().clone().requires_grad_()
            verdict = self.discriminator(real[:, None], reference_speaker)[0]
            fake = self.discriminator(output.detach()[:, None], reference_speaker)[0]
            return {
                "discriminator": adversarial(verdict, True) + adversarial(fake, False),
                "r1": r1(verdict, real),
            }
        f0, loudness = self.pitch_extractor(output[:, None]).f0, energy(output.float())[:, 0]
        back = self.decoder(self.mel_encoder(output), f0, loudness, batch["own"])
        with torch.no_grad():
            real_features = self.discriminator(target[:, None], reference_speaker)[1]
        verdict, features = self.discriminator(output[:, None], reference_speaker)
        spelled = self.linear_proj(batch["content"])
        known = batch["labels"] >= 0
        return {
            "mel": masked_l1(output, target),
            "phonemes": frame_cross_entropy(spelled, batch["labels"]),
            "cycle": masked_l1(back, batch["rebuilt"]),
            "adversarial": adversarial(verdict, True),
            "adversarial_cycle": adversarial(self.discriminator(back[:, None], speaker)[0], True),
            "features": feature_matching(real_features, features),
            "metric/phoneme_accuracy": share(spelled.argmax(1) == batch["labels"], known),
        }

    def validate(self, step: int) -> dict[str, float]:
        """L1 between teacher and student on held-out recordings."""
        if self.valid is None:
            return {}
        batch = self.forward(moved(self.valid.batch(0), next(self.decoder.parameters()).device))
        return {"mel": masked_l1(batch["output"], batch["target"]).item()}

    def sample(self, step: int) -> Samples:
        """A piece, the teacher's conversion and the student's; sound by Griffin-Lim."""
        batch = self.forward(moved(self.data.batch(0), next(self.decoder.parameters()).device))
        shown = {"heard": "source", "target": "target", "made": "output"}
        mels = {name: batch[key][0] for name, key in shown.items()}
        vocoder = GriffinLim().to(batch["output"].device)
        return Samples({name: vocoder(mel[None].float())[0, 0] for name, mel in mels.items()}, mels)

    def remarks(self) -> list[str]:
        """Recordings that could not be used."""
        return self.data.corpus.remarks()
