"""Stage `finetune`: adapts decoder and style encoder to one speaker from minutes of recordings,
without text.

The mel encoder and the pitch extractor stay as stage 2 left them, so content keeps its meaning; the
decoder learns the voice from pieces whose style comes from *another* piece of the same speaker.
"""

from typing import ClassVar

import torch
from torch import Tensor

from rtvc.audio.energy import energy
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.mel_distance import mel_band_limit
from rtvc.data.dataset import Corpus, piece
from rtvc.models.vocoder import GriffinLim
from rtvc.train.config import DataConfig, RunConfig
from rtvc.train.losses.losses import discriminator_losses, generator_losses, masked_l1
from rtvc.train.material import components
from rtvc.train.material.recorded import PieceStage
from rtvc.train.material.speech import exact_mel
from rtvc.train.stage import Batch, Samples


class Weights(components.OpposedWeights):
    """Factors of the losses."""

    style: float = 1.0
    """The style of what is made, against that of the reference."""


class FinetuneConfig(RunConfig):
    """Configuration of stage `finetune`."""

    data: DataConfig
    model: components.ModelConfig = components.ModelConfig()
    weights: Weights = Weights()


class Finetune(PieceStage):
    """Trains `style_encoder`, `decoder` and a new `discriminator`; exports all that conversion
    needs."""

    config_type: ClassVar[type[RunConfig]] = FinetuneConfig
    draws = "finetune"

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__(config.data, config.seed)
        self.config = config
        self.samples = round(config.data.seconds * SAMPLE_RATE) // (2 * HOP) * 2 * HOP
        self.mel_encoder = components.mel_encoder(config.model)
        self.pitch_extractor = components.pitch_extractor(config.model)
        self.style_encoder = components.style_encoder(config.model)
        self.decoder = components.decoder(config.model)
        self.discriminator = components.discriminator(config.model, len(self.corpus.speakers))
        needed = ("mel_encoder", "pitch_extractor", "style_encoder", "decoder")
        self.modules = {name: getattr(self, name) for name in (*needed, "discriminator")}
        self.phases = {
            "discriminator": ("discriminator",),
            "generator": ("style_encoder", "decoder"),
        }
        self.averaged = needed

    def pieces(self, corpus: Corpus, numbers: list[int], draw: torch.Generator) -> Batch:
        """wave (B, N) and other (B, N) of the same speakers, speaker (B,), bandwidth (B,)."""
        waves, others, used = [], [], []
        for number in numbers:
            number, wave = corpus.usable(number, self.config.seed, lambda k: (k, corpus.wave(k)))
            same = corpus.of_speaker[corpus.entries[number].speaker]
            other = same[int(torch.randint(len(same), (), generator=draw))]
            waves.append(piece(wave, self.samples, draw)[0])
            others.append(
                piece(corpus.usable(other, self.config.seed, corpus.wave), self.samples, draw)[0]
            )
            used.append(number)
        speakers = torch.tensor(
            [corpus.speaker_index[corpus.entries[number].speaker] for number in used]
        )
        return {
            "wave": torch.stack(waves),
            "other": torch.stack(others),
            "speaker": speakers,
            "bandwidth": corpus.tell_bandwidths(used),
        }

    def forward(self, batch: Batch) -> Batch:
        """Mels (B, 80, T) of both pieces, the reference's style, and the reconstruction; computed
        once a step."""
        if "output" not in batch:
            target, reference = (exact_mel(batch[name])[..., :-1] for name in ("wave", "other"))
            with torch.no_grad():
                content, f0 = self.mel_encoder(target), self.pitch_extractor(target[:, None]).f0
            style = self.style_encoder(reference[:, None])
            batch |= {
                "target": target,
                "style": style,
                "output": self.decoder(content, f0, energy(target)[:, 0], style),
            }
        return batch

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """The discriminator's losses, or everything that decoder and style encoder minimise."""
        self.forward(batch)
        target, output, speaker = batch["target"], batch["output"], batch["speaker"]
        if phase == "discriminator":
            return discriminator_losses(self.discriminator, target, output, speaker)
        verdict, features = generator_losses(self.discriminator, target, output, speaker)
        return {
            "mel": masked_l1(output, target, mel_band_limit(batch["bandwidth"])),
            "style": masked_l1(self.style_encoder(output[:, None]), batch["style"].detach()),
            "adversarial": verdict,
            "features": features,
        }

    def validate(self, step: int) -> dict[str, float]:
        """L1 of reconstructed held-out pieces."""
        batch = self.held_out_batch()
        if batch is None:
            return {}
        batch = self.forward(batch)
        limit = mel_band_limit(batch["bandwidth"])
        return {"mel": masked_l1(batch["output"], batch["target"], limit).item()}

    def sample(self, step: int) -> Samples:
        """A piece and its reconstruction; sound by Griffin-Lim."""
        batch = self.forward(self.first())
        mels = {"true": batch["target"][0], "made": batch["output"][0]}
        vocoder = GriffinLim().to(self.device())
        return Samples({name: vocoder(mel[None].float())[0, 0] for name, mel in mels.items()}, mels)
