"""Stage `joint`: the converter learns as a whole, and a recogniser listens to what it says in other
voices.

Two things are made of every piece. In the speaker's own voice (the style is of another stretch of
the same speaker) the waveform itself is the target. In the voice of another row nothing is known
but what it must be: the words of the source, told by the judge, and the person that was asked for,
told by a speaker encoder (StyleTTS-VC, section 3.3, L_MI; one loss each of word, voice and
spectrum: a second of a kind was found to make both worse, arXiv 2601.03892).

The encoder hears each piece through another microphone and at the dial's settings in turn, so one
decoder serves all of them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP
from rtvc.audio.spectral import BandedSTFT
from rtvc.data.speech import Cut
from rtvc.data.utterance import Utterance
from rtvc.errors import ConfigError
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.assets import load_default
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.style import STYLE
from rtvc.models.streaming.timbre import PARTS as TIMBRE_PARTS
from rtvc.models.styletts2.discriminators import MultiResolutionDiscriminator, Verdict
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.losses import feature_matching, lsgan_discriminator, lsgan_generator
from rtvc.train.losses.projected import FeatureDiscriminator
from rtvc.train.losses.prosody_targets import low_passed, manner
from rtvc.train.losses.speaker import SpeakerEncoder
from rtvc.train.material.recogniser import Recogniser, RecogniserConfig
from rtvc.train.material.stream_data import frozen, stacked
from rtvc.train.material.unit_batches import Heads, SpeechRun, SpeechStage, told
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples
from rtvc.train.streaming.stream import DiscriminatorConfig
from rtvc.train.streaming.units import noisy

BELIEVED_F0 = 1_000.0
"""Hz; estimates above it are mostly mistakes."""
STYLE_PARTS = ("acoustic", "prosodic", "targets")
LISTENED = (3, 7)
"""Blocks of the judge whose outputs are compared, counted from 0."""
HEAD_START = 100
"""Steps that the discriminators learn before the converter minds them."""


class Weights(Section):
    """Factors of the losses; 0 switches a loss, and what only it needs, off."""

    stft: float = 1.0
    """Spectral distance of the reconstruction."""
    units: float = 0.2
    """Cross entropy of the encoder's own heads: its content stays what the units say."""
    phonemes: float = 0.1
    prosody: float = 0.3
    """L1 of the voice's F0 mean and deviation and energy deviation."""
    words: float = 0.5
    """Cross entropy of the judge's units and phonemes on what is said in a foreign voice."""
    listening: float = 0.5
    """L1 of the judge's inner layers between that and the source."""
    foreign: float = 0.5
    """Cosine distance of the speaker embeddings of what is said in a foreign voice and of that
    voice's reference."""
    adversarial: float = 0.0
    """Least-squares verdict of the discriminators on both; 0.2 is usual."""
    features: float = 1.0
    """Feature matching of the reconstruction; counts only with `adversarial`."""
    discriminator: float = 1.0


class JointConfig(SpeechRun):
    """Configuration of stage `joint`."""

    model: DialConfig = DialConfig()
    judge: RecogniserConfig = RecogniserConfig()
    weights: Weights = Weights()
    noise: float = Field(default=0.5, ge=0)
    """Noise on the content in training, as a share of its size."""
    reference_frames: int = Field(default=256, ge=16)
    """Length of the style reference, 12.5 ms a frame."""
    gain: tuple[float, float] = (-1.0, 0.7)
    """Range of the log-gain of pieces, which the decoder must follow; limited so that nothing
    clips."""
    without_tokens: float = Field(default=0.1, ge=0, le=1)
    """Share of voices that the decoder knows by their style alone, as those that come without a
    recording."""
    grow: bool = True
    """Whether decoder and style encoders begin as those of the shipped model, where names and
    shapes agree."""
    train_encoder: bool = True
    train_styles: bool = True
    foreign_from: int = Field(default=0, ge=0)
    """Steps before which the decoder is too rough for a judge."""
    adversarial_from: int = Field(default=0, ge=0)
    """Steps in which only the discriminators learn from what they see."""
    spectra: DiscriminatorConfig = DiscriminatorConfig(
        resolutions=((512, 128, 512), (1024, 256, 1024)), channels=12, power=0.3, rows=5
    )
    """The discriminators of spectrograms beside those of the judge's features."""
    shown: int = Field(default=32, ge=8)
    """Frames of HOP samples that they are shown of each row."""


@dataclass
class Heard:
    """What is known of a batch before anything is decoded."""

    content: Tensor  # (B, Z, T)
    energy: Tensor  # (B, 1, T)
    acoustic: Tensor  # (B, A)
    prosodic: Tensor  # (B, 128)
    reference_energy: Tensor  # (B, T')


@dataclass
class Said:
    """A wave that the decoder made or that was recorded, and how the judge hears it."""

    wave: Tensor  # (B, N)
    layers: list[Tensor]  # (B, C, T) each; empty where no loss listens


@dataclass
class Made:
    """What is made of a batch, kept in it from the discriminators' phase to the converter's."""

    heard: Heard
    own: Said
    """In the speaker's own voice."""
    true: Said
    foreign: Said | None
    """In the voice of another row; None while the decoder is too rough for it."""


def take_matching(module: nn.Module, source: nn.Module) -> None:
    """Copies the weights of another module where name and shape agree, and leaves the others as
    they are."""
    theirs = source.state_dict()
    ours = module.state_dict()
    module.load_state_dict(
        ours
        | {
            name: theirs[name]
            for name in ours
            if name in theirs and ours[name].shape == theirs[name].shape
        }
    )


class Joint(SpeechStage):
    """Trains the parts of `DialConverter` but its pitch network, and the encoder's `heads`."""

    config_type: ClassVar[type[RunConfig]] = JointConfig

    def __init__(self, config: JointConfig) -> None:
        super().__init__(config)
        self.config, weights = config, config.weights
        self.model = DialConverter(config.model)
        self.analysis = self.model.analysis
        self.centre = self.analysis.centre
        self.heads = Heads(config.model.encoder.content)
        self.stft = BandedSTFT()
        timbre = list(TIMBRE_PARTS) if config.model.timbre else []
        parts = ["decoder", "affine", *timbre, *(STYLE_PARTS if config.train_styles else ())]
        parts += ["encoder"] if config.train_encoder else []
        named = {
            name: getattr(self.model, name)
            for name in ("decoder", "affine", *timbre, *STYLE_PARTS, "encoder", "analysis")
        }
        self.modules = {**named, "heads": self.heads, "stft": self.stft}
        for name in ("encoder", *STYLE_PARTS):
            if name not in parts:
                frozen(named[name])
        self.averaged = parts
        self.phases = {"converter": [*parts, *(["heads"] if config.train_encoder else [])]}
        self.judged = bool(weights.words or weights.listening or weights.adversarial)
        if self.judged:
            self.judge = self.modules["judge"] = frozen(Recogniser(config.judge))
        if weights.foreign:
            self.speaker = self.modules["speaker"] = frozen(SpeakerEncoder.pretrained())
        if weights.adversarial:
            self.features = self.modules["features"] = FeatureDiscriminator(
                config.judge.hidden, len(LISTENED)
            )
            self.spectra = self.modules["spectra"] = MultiResolutionDiscriminator(
                **config.spectra.model_dump(exclude={"rows"})
            )
            self.phases = {"discriminator": ["features", "spectra"], **self.phases}

    def begin(self, initialised: Collection[str]) -> None:
        """Refuses to listen to an encoder or a judge that nobody trained; what else `[[init]]`
        lacks begins as the shipped model's."""
        needed = {"encoder", "heads"} | ({"judge"} if self.judged else set())
        if missing := needed - set(initialised):
            raise ConfigError(
                f"[[init]] gives no {', '.join(sorted(missing))}: name runs of `rtvc train units`"
                " and `rtvc train judge`"
            )
        if self.config.grow:
            shipped = load_default()
            for name in {"decoder", "affine", *STYLE_PARTS} - set(initialised):
                take_matching(self.modules[name], getattr(shipped, name))

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """One row of `batch`."""
        piece = Cut.draw(utterance, self.config.data.frames, speed, rng)
        beside = self.speech.beside(number, rng)
        other = self.speech.usable(beside, self.config.seed, lambda _, u: u)
        if other.speaker != utterance.speaker:
            other = utterance
        reference = Cut.draw(other, self.config.reference_frames, speed, rng)
        row = self.labels(piece, number, rng)
        gain = min(
            float(np.exp(rng.uniform(*self.config.gain))),
            0.99 / max(float(row["wave"].abs().max()), 1e-3),
        )
        log_f0, voiced = piece.melody(self.centre, BELIEVED_F0)
        reference_f0, reference_voiced = reference.melody(self.centre, BELIEVED_F0)
        return row | {
            "wave": row["wave"] * gain,
            "heard": row["heard"] * gain,
            "log_f0": log_f0,
            "voiced": voiced,
            "reference": reference.wave(),
            "reference_f0": reference_f0,
            "reference_voiced": reference_voiced,
            "cutoff": torch.tensor(piece.cutoff()),
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N); heard (B, N), the same through another microphone or said by another voice;
        units (B, L, T), phonemes, log_f0 and voiced (B, T); reference (B, M) and its F0 and
        voicing; cutoff (B,) in Hz."""
        return self.heard(stacked(self.rows(index)), index)

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> log-mel (B, BANDS, T), without gradients, in float32."""
        with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
            heard: Tensor
            heard, _ = self.analysis(wave[:, None], self.analysis.initial(len(wave)))
        return heard[:, :BANDS]

    def listen(self, batch: Batch, lookahead: int) -> Heard:
        """What the model knows of a batch at a setting of the dial, F0 excepted, which is the
        labels'."""
        with torch.set_grad_enabled(self.config.train_encoder and torch.is_grad_enabled()):
            (content,) = self.model.encoder.contents(self.mel(batch["heard"]), (lookahead,))
        reference = self.mel(batch["reference"])
        melody = torch.stack([batch["reference_f0"], batch["reference_voiced"]], 1)
        acoustic, prosodic = (style.float() for style in self.model.styles_of(reference, melody))
        if self.model.decoder.training:
            kept = (
                torch.rand(len(acoustic), 1, device=acoustic.device) >= self.config.without_tokens
            )
            acoustic = torch.cat([acoustic[:, :STYLE], acoustic[:, STYLE:] * kept], 1)
        return Heard(
            content,
            energy_of(self.mel(batch["wave"])),
            acoustic,
            prosodic,
            energy_of(reference)[:, 0],
        )

    def said(self, heard: Heard, batch: Batch, voice: Tensor) -> Tensor:
        """The decoder's wave (B, N'), aligned with `true`."""
        content = (
            noisy(heard.content, self.config.noise)
            if self.model.decoder.training
            else heard.content
        )
        decoder = self.model.decoder
        wave, _ = decoder(
            content,
            batch["log_f0"],
            batch["voiced"],
            heard.energy,
            voice.float(),
            decoder.initial(len(content)),
        )
        aligned: Tensor = wave[:, 0, HOP - self.centre :].float()
        return aligned

    def true(self, batch: Batch) -> Tensor:
        """The recorded wave (B, N') where the decoder has completed it."""
        wave: Tensor = batch["wave"]
        return wave[:, : wave.shape[1] - (HOP - self.centre)]

    def warmed(self, wave: Tensor) -> Tensor:
        """Without the beginning, where the networks have heard too little."""
        return wave[:, self.config.warm * HOP :]

    def listened(self, wave: Tensor) -> Said:
        """A wave (B, N) and how the judge hears it; gradients reach the wave."""
        return Said(wave, self.judge.layers(wave) if self.judged else [])

    def made(self, batch: Batch, step: int) -> Made:
        """What the model makes of a batch, at the dial's setting whose turn it is."""
        settings, weights = self.model.encoder.lookaheads, self.config.weights
        heard = self.listen(batch, settings[step % len(settings)])
        own = self.said(heard, batch, self.model.decoding(heard.acoustic))
        foreign = None
        if step >= self.config.foreign_from and (
            weights.words or weights.listening or weights.foreign
        ):
            voice = self.model.decoding(heard.acoustic.roll(1, 0))
            foreign = self.listened(self.said(heard, self.in_register(heard, batch), voice))
        with torch.no_grad():
            true = self.listened(self.true(batch))
        return Made(
            heard, self.listened(own) if weights.adversarial else Said(own, []), true, foreign
        )

    def in_register(self, heard: Heard, batch: Batch) -> Batch:
        """The batch with the melody moved to the register of the next row, where both are known."""
        right = manner(batch["reference_f0"], batch["reference_voiced"], heard.reference_energy)
        known, register = (right.known * right.known.roll(1, 0))[:, None], right.targets[:, :1]
        return batch | {"log_f0": batch["log_f0"] + (register.roll(1, 0) - register) * known}

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """What the discriminators minimise, or everything that the converter does."""
        config, weights = self.config, self.config.weights
        opposed = weights.adversarial > 0 and step >= config.adversarial_from
        if phase == "discriminator" and not opposed:
            return {}
        if "made" not in batch:
            batch["made"] = self.made(batch, step)
        made: Made = batch["made"]
        if phase == "discriminator":
            return {"discriminator": self.opponents_loss(made, batch["cutoff"], step)}
        losses = {
            "stft": self.stft(
                self.warmed(made.own.wave), self.warmed(made.true.wave), batch["cutoff"]
            )
        }
        if config.train_encoder:
            values = told(
                self.heads(noisy(made.heard.content, config.noise)),
                batch["units"],
                batch["phonemes"],
            )
            losses |= {
                name: value for name, value in values.items() if name in ("units", "phonemes")
            }
            losses["metric/encoder_units"] = values["metric/units_right"]
        if config.train_styles:
            with torch.autocast(made.own.wave.device.type, enabled=False):
                right = manner(
                    batch["reference_f0"], batch["reference_voiced"], made.heard.reference_energy
                )
                targets = self.model.targets(made.heard.prosodic)
                losses["prosody"] = ((targets - right.targets).abs() * right.known[:, None]).mean()
        if made.foreign is not None:
            losses |= self.foreign_losses(made.foreign, made.true, batch)
        if opposed and step >= config.adversarial_from + HEAD_START:
            losses |= self.convincing(made, batch["cutoff"], step)
        return losses

    def foreign_losses(self, foreign: Said, true: Said, batch: Batch) -> dict[str, Tensor]:
        """Whether the words are still there in another voice, and whether it is that voice."""
        weights, warm, losses = self.config.weights, self.config.warm, {}
        if weights.words:
            frames = foreign.layers[-1].shape[-1]
            logits = [x[..., warm:] for x in self.judge.told(foreign.layers[-1])]
            values = told(
                logits, batch["units"][..., warm:frames], batch["phonemes"][:, warm:frames]
            )
            losses["words"] = values["units"] + values["phonemes"]
            losses["metric/said_units"] = values["metric/units_right"]
            losses["metric/said_phonemes"] = values["metric/phonemes_right"]
        if weights.listening:
            pairs = [
                (foreign.layers[k][..., warm:].float(), true.layers[k][..., warm:].float())
                for k in LISTENED
            ]
            losses["listening"] = torch.stack(
                [(x - y).abs().mean() / y.abs().mean() for x, y in pairs]
            ).mean()
        if weights.foreign:
            with torch.no_grad():
                target = self.speaker(batch["reference"]).roll(1, 0)
            losses["foreign"] = 1 - (self.speaker(foreign.wave) * target).sum(1).mean()
        return losses

    def verdicts(self, said: Said, cutoff: Tensor, step: int) -> list[Verdict]:
        """What the discriminators say: of all frames by the judge's features, of a short stretch of
        some rows by spectra."""
        warm, config = self.config.warm, self.config
        by_features: list[Verdict] = self.features([said.layers[k][..., warm:] for k in LISTENED])
        frames = said.wave.shape[1] // HOP - warm
        start = (warm + step * 7 % max(1, frames - config.shown)) * HOP
        rows = slice(config.spectra.rows)
        piece = low_passed(said.wave[rows, start : start + config.shown * HOP], cutoff[rows])
        by_spectra: list[Verdict] = self.spectra(piece[:, None])
        return by_features + by_spectra

    def opponents_loss(self, made: Made, cutoff: Tensor, step: int) -> Tensor:
        """The discriminators on what was recorded and what was made, in either voice."""
        real = [v.logits for v in self.verdicts(made.true, cutoff, step)]
        losses = []
        for said in (made.own, made.foreign):
            if said is not None:
                detached = Said(said.wave.detach(), [layer.detach() for layer in said.layers])
                losses.append(
                    lsgan_discriminator(
                        real, [v.logits for v in self.verdicts(detached, cutoff, step)]
                    )
                )
        return torch.stack(losses).mean()

    def convincing(self, made: Made, cutoff: Tensor, step: int) -> dict[str, Tensor]:
        """The converter against the discriminators, and their features of the reconstruction
        against those of the recording."""
        own = self.verdicts(made.own, cutoff, step)
        with torch.no_grad():
            real = self.verdicts(made.true, cutoff, step)
        said = [own] if made.foreign is None else [own, self.verdicts(made.foreign, cutoff, step)]
        return {
            "adversarial": (
                torch.stack(
                    [lsgan_generator([v.logits for v in verdicts]) for verdicts in said]
                ).mean()
                / len(own)
            ),
            "features": (
                feature_matching(
                    [f for v in real for f in v.features], [f for v in own for f in v.features]
                )
                / len(own)
            ),
        }

    def validate(self, step: int) -> dict[str, float]:
        """The same on speakers that are held out, at the dial's second setting."""
        return self.held_out_losses("converter", 1)

    def sample(self, step: int) -> Samples:
        """A piece, its reconstruction, and the same in the voice of another row."""
        batch = moved(self.batch(0), self.analysis.window.device)
        heard = self.listen(batch, self.model.encoder.lookaheads[-1])
        own = self.said(heard, batch, self.model.decoding(heard.acoustic))
        other = self.said(heard, batch, self.model.decoding(heard.acoustic.roll(1, 0)))
        sounds = {"true": self.true(batch)[0], "made": own[0], "converted": other[0]}
        mels = {
            name: self.mel(wave[None, : len(wave) // HOP * HOP])[0].cpu()
            for name, wave in sounds.items()
        }
        return Samples(sounds, mels)
