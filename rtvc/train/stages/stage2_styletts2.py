"""Stage `stage2_styletts2`: prosodic style, prosody predictor and style diffusion; late in the run
decoder and acoustic style too.

Source: StyleTTS 2, section 3.2 (second stage) and the authors' `train_second.py`. Left out:
adversarial training with the speech language model WavLM, whose weights cannot be had from the
package registries.
"""

from collections.abc import Collection
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rtvc.audio.energy import energy
from rtvc.audio.mel import HOP
from rtvc.audio.mel_distance import MultiResolutionMel
from rtvc.models.styletts2.discriminators import (
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    Verdict,
)
from rtvc.models.styletts_vc.style_encoder import prosodic_from
from rtvc.models.styletts_vc.text_encoder import padding_mask
from rtvc.train.config import DataConfig, RunConfig, Section
from rtvc.train.losses.losses import (
    durations,
    feature_matching,
    lsgan_discriminator,
    lsgan_generator,
    relativistic,
)
from rtvc.train.material import components
from rtvc.train.material.align import align, cut
from rtvc.train.material.prosody import (
    ProsodyModelConfig,
    StyleDeviation,
    plbert,
    predictor,
    row_styles,
    style_diffusion,
    waveform_decoder,
)
from rtvc.train.material.recorded import UtteranceStage
from rtvc.train.stage import Batch, Samples


class Weights(Section):
    """Factors of the losses, those of the authors' LibriTTS configuration."""

    mel: float = 5.0
    f0: float = 0.1
    """Of the smooth L1 in Hz."""
    energy: float = 1.0
    duration: float = 1.0
    duration_digits: float = 20.0
    diffusion: float = 1.0
    generator: float = 1.0
    features: float = 2.0
    relativistic: float = 1.0
    discriminator: float = 1.0
    relativistic_discriminator: float = 1.0


class Stage2StyleTTS2Config(RunConfig):
    """Configuration of stage `stage2_styletts2`."""

    data: DataConfig
    model: ProsodyModelConfig = ProsodyModelConfig()
    weights: Weights = Weights()
    attention_over: Literal["frames", "tokens"] = "frames"
    diffusion_from: int = Field(default=100_000, ge=0)
    """Step from which style diffusion and the discriminators train (10 epochs of LibriTTS in the
    paper)."""
    joint_from: int = Field(default=150_000, ge=0)
    """Step from which decoder and acoustic style encoder train along, on recordings instead of
    their own reconstructions."""
    longest_piece: int = Field(default=300, ge=90, le=100_000)
    """Mel frames of a piece that is decoded."""


ACOUSTIC = ("style_encoder", "decoder")
FROZEN = ("text_aligner", "pitch_extractor", "text_encoder")
TRAINED = ("bert", "bert_encoder", "predictor_encoder", "predictor", "diffusion", *ACOUSTIC)


class Stage2StyleTTS2(UtteranceStage):
    """Trains the prosodic half of StyleTTS 2; `predictor_encoder` starts as a copy of
    `style_encoder` unless `[[init]]` brings one."""

    config_type: ClassVar[type[RunConfig]] = Stage2StyleTTS2Config

    def __init__(self, config: Stage2StyleTTS2Config) -> None:
        self.config, model = config, config.model
        super().__init__(config.data, config.seed, reference="same", waves=True)
        self.text_aligner, self.pitch_extractor = (
            components.text_aligner(model),
            components.pitch_extractor(model),
        )
        self.text_encoder, self.style_encoder = (
            components.text_encoder(model),
            components.style_encoder(model),
        )
        self.decoder = waveform_decoder(model)
        self.predictor_encoder, self.predictor = prosodic_from(self.style_encoder), predictor(model)
        self.bert, self.bert_encoder = plbert(model), nn.Linear(model.bert_hidden, model.hidden_dim)
        self.diffusion, self.deviation = style_diffusion(model), StyleDeviation()
        self.mpd, self.msd = MultiPeriodDiscriminator(), MultiResolutionDiscriminator()
        self.distance = MultiResolutionMel()
        names = (*FROZEN, *TRAINED, "deviation", "mpd", "msd")
        self.modules = {name: getattr(self, name) for name in names} | {"distance": self.distance}
        self.phases = {"discriminator": ("mpd", "msd"), "generator": TRAINED}
        self.averaged = (*FROZEN, *TRAINED, "deviation")

    def begin(self, initialised: Collection[str]) -> None:
        """The prosodic encoder starts as a copy of the acoustic one."""
        if "predictor_encoder" not in initialised:
            self.predictor_encoder.load_state_dict(self.style_encoder.state_dict())

    def frozen(self, phase: str, step: int) -> Collection[str]:
        """Decoder and acoustic style before `joint_from`, diffusion before `diffusion_from`."""
        resting = () if step >= self.config.joint_from else ACOUSTIC
        return resting if step >= self.config.diffusion_from else (*resting, "diffusion")

    def forward(self, batch: Batch, step: int) -> Batch:
        """Everything up to the waveform of a piece; computed once a step, for both phases."""
        if "output" in batch:
            return batch
        tokens, lengths, mel, frames = (
            batch["tokens"],
            batch["lengths"],
            batch["mel"],
            batch["frames"],
        )
        mask = padding_mask(lengths, tokens.shape[1])
        with torch.no_grad():
            aligned = align(
                self.text_aligner, mel, frames, tokens, lengths, self.config.attention_over
            )
            content = self.text_encoder(tokens, lengths, mask) @ aligned.hard
        text = self.bert(tokens, mask)
        prosodic = row_styles(self.predictor_encoder, mel, frames)
        digits, encoded = self.predictor(
            self.bert_encoder(text).mT, prosodic, lengths, aligned.hard, mask
        )

        half = min(int(aligned.frames.min()) - 1, self.config.longest_piece // 2)
        starts, others = (
            (torch.rand(len(tokens)) * (aligned.frames.cpu() - half + 1)).long() for _ in range(2)
        )
        content, encoded = cut(starts, half, content, encoded)
        true, other = cut(2 * starts, 2 * half, mel)[0], cut(2 * others, 2 * half, mel)[0]
        (wave,) = cut(2 * HOP * starts, 2 * HOP * half, batch["wave"])
        with torch.set_grad_enabled(torch.is_grad_enabled() and step >= self.config.joint_from):
            acoustic = self.style_encoder(other[:, None])
        with torch.no_grad():
            true_f0, true_energy = (
                self.pitch_extractor(true[:, None]).f0,
                energy(true.float())[:, 0],
            )
            if step < self.config.joint_from:  # the decoder is fixed: what it can do is the target
                wave = self.decoder(content, true_f0, true_energy, acoustic)[:, 0]
        f0, loudness = self.predictor.curves(encoded, self.predictor_encoder(other[:, None]))
        output = self.decoder(content, f0, loudness, acoustic)
        outputs = {
            "aligned": aligned,
            "text": text,
            "prosodic": prosodic,
            "digits": digits,
            "wave_piece": wave[:, None],
            "output": output,
        }
        return (
            batch
            | outputs
            | {"f0": f0, "energy": loudness, "true_f0": true_f0, "true_energy": true_energy}
        )

    def verdicts(self, wave: Tensor) -> list[Verdict]:
        """What all discriminators say of wave (B, 1, N)."""
        return [*self.mpd(wave), *self.msd(wave)]

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Discriminators on waveforms from `diffusion_from` on; durations, curves, sound and
        diffusion for the rest."""
        judged = step >= self.config.diffusion_from
        if phase == "discriminator" and not judged:
            return {}
        components.differentiable([self.predictor])
        batch.update(self.forward(batch, step))
        output, wave = batch["output"].float(), batch["wave_piece"].float()
        if phase == "discriminator":
            real, fake = (
                [verdict.logits for verdict in self.verdicts(sound)]
                for sound in (wave, output.detach())
            )
            relative = relativistic(real, fake, generator=False)
            return {
                "discriminator": lsgan_discriminator(real, fake),
                "relativistic_discriminator": relative,
            }
        l1, digits = durations(batch["digits"], batch["aligned"].hard.sum(-1), batch["lengths"])
        losses = {
            "mel": self.distance(output[:, 0], wave[:, 0], batch["bandwidth"]),
            "f0": F.smooth_l1_loss(batch["f0"].float(), batch["true_f0"].float()),
            "energy": F.smooth_l1_loss(batch["energy"].float(), batch["true_energy"].float()),
            "duration": l1,
            "duration_digits": digits,
        }
        if not judged:
            return losses
        with torch.no_grad():
            real_verdicts = self.verdicts(wave)
        fake_verdicts = self.verdicts(output)
        fake = [verdict.logits for verdict in fake_verdicts]
        pairs = zip(real_verdicts, fake_verdicts, strict=True)
        return losses | {
            "generator": lsgan_generator(fake),
            "features": (
                torch.stack(
                    [feature_matching(real.features, output.features) for real, output in pairs]
                ).sum()
            ),
            "relativistic": relativistic(
                [verdict.logits for verdict in real_verdicts], fake, generator=True
            ),
            "diffusion": self.diffuse(batch),
        }

    def diffuse(self, batch: Batch) -> Tensor:
        """The denoiser's loss: the utterance's own two styles, given its text and another
        recording's styles."""
        with torch.no_grad():
            acoustic = row_styles(self.style_encoder, batch["mel"], batch["frames"])
            styles = torch.cat([acoustic, batch["prosodic"]], -1).float()
            other = batch["reference"][:, None]
            reference = torch.cat(
                [self.style_encoder(other), self.predictor_encoder(other)], -1
            ).float()
        self.diffusion.diffusion.deviation = self.deviation.update(styles)
        loss: Tensor = self.diffusion(styles, batch["text"].float(), reference)
        return loss

    def validate(self, step: int) -> dict[str, float]:
        """Spectral distance, durations and F0 on held-out recordings."""
        batch = self.held_out_batch()
        if batch is None:
            return {}
        batch = self.forward(batch, step)
        l1, _ = durations(batch["digits"], batch["aligned"].hard.sum(-1), batch["lengths"])
        distance = self.distance(
            batch["output"][:, 0], batch["wave_piece"][:, 0], batch["bandwidth"]
        )
        return {
            "mel": float(distance),
            "duration": float(l1),
            "f0": float((batch["f0"] - batch["true_f0"]).abs().mean()),
        }

    def sample(self, step: int) -> Samples:
        """A piece as it is, and with predicted prosody."""
        batch = self.forward(self.first(), step)
        return Samples(
            {"true": batch["wave_piece"][0, 0], "made": batch["output"][0, 0]},
            {"path": batch["aligned"].hard[0].flip(0)},
        )
