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
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP
from rtvc.audio.mel_distance import MultiResolutionMel
from rtvc.audio.spectral import BandedSTFT
from rtvc.data.augment import drawn_gain
from rtvc.data.speech import Cut
from rtvc.data.utterance import Utterance
from rtvc.errors import ConfigError
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.dial import DialConverter
from rtvc.models.streaming.pitch import AHEAD
from rtvc.models.streaming.style import STYLE
from rtvc.models.streaming.timbre import PARTS as TIMBRE_PARTS
from rtvc.models.styletts2.discriminators import MultiResolutionDiscriminator
from rtvc.train.config import RunConfig
from rtvc.train.losses.heard_units import HeardUnits
from rtvc.train.losses.mel_patches import MelDiscriminators
from rtvc.train.losses.opponents import JudgedWave, Opponents
from rtvc.train.losses.projected import FeatureDiscriminator
from rtvc.train.losses.prosody_targets import in_next_register, prosody_of
from rtvc.train.losses.speaker import SpeakerEncoder, cosine_distance
from rtvc.train.material.first import first_generation
from rtvc.train.material.inherited import inherit_inputs, take_matching
from rtvc.train.material.recogniser import Recogniser
from rtvc.train.material.stream_data import frozen, stacked
from rtvc.train.material.unit_batches import (
    Heads,
    SpeechStage,
    analysed,
    energies_of,
    told_ahead,
    unit_losses,
    with_melodies,
)
from rtvc.train.material.units import Codebook
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples
from rtvc.train.streaming.joint_config import JointConfig
from rtvc.train.streaming.joint_outputs import Encoded, Outputs
from rtvc.train.streaming.units import noisy

BELIEVED_F0 = 1_000.0
"""Hz; estimates above it are mostly mistakes."""
LISTENED = (3, 7)
"""Blocks of the judge whose outputs are to be those of the source, counted from 0."""
STYLE_PARTS = ("acoustic", "prosodic", "targets")


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
        if weights.mel:
            self.modules["mels"] = MultiResolutionMel()
        for name in ("encoder", *STYLE_PARTS):
            if name not in parts:
                frozen(named[name])
        # The heads too, though no converter has them: a run that goes on from this one needs them.
        self.averaged = [*parts, *(["heads"] if config.train_encoder else [])]
        self.phases = {"converter": self.averaged}
        if config.melody == "network":
            self.modules["pitch"] = frozen(self.model.pitch)
        if config.needs_judge:
            self.judge = self.modules["judge"] = frozen(Recogniser(config.judge))
        if weights.heard:
            self.heard = self.modules["heard"] = HeardUnits(Codebook.load(config.codebook))
        if weights.foreign or weights.leak:
            self.speaker = self.modules["speaker"] = frozen(SpeakerEncoder.pretrained())
        if weights.adversarial:
            features = FeatureDiscriminator(config.judge.hidden, len(config.seen))
            patches = MelDiscriminators(**config.patches.model_dump())
            spectra = MultiResolutionDiscriminator(**config.spectra.model_dump(exclude={"rows"}))
            looks = (config.warm, config.shown, config.spectra.rows, config.seen)
            self.opponents = Opponents(features, patches, spectra, *looks)
            opponents = {"features": features, "patches": patches, "spectra": spectra}
            self.modules |= opponents
            self.phases = {"discriminator": list(opponents), **self.phases}

    def begin(self, initialised: Collection[str]) -> None:
        """Refuses to listen to an encoder or a judge that nobody trained; what else `[[init]]`
        lacks begins as the first generation's."""
        needed = {"encoder", "heads"} | ({"judge"} if self.config.needs_judge else set())
        needed |= {"pitch"} & set(self.modules)
        if missing := needed - set(initialised):
            raise ConfigError(
                f"[[init]] gives no {', '.join(sorted(missing))}: name runs of `rtvc train units`,"
                " `judge` and, for its pitch, `melody`"
            )
        begun = {"decoder", "affine", *STYLE_PARTS} - set(initialised)
        if self.config.grow and begun:
            first = first_generation()
            for name in begun:
                take_matching(self.modules[name], getattr(first, name))
            if "decoder" in begun:
                batches = map(self.batch, range(self.config.inherit_batches))
                here = (moved(b, self.device()) for b in batches)
                inherit_inputs(self.model, first, here, self.config.warm)

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """One row of `batch`."""
        piece = Cut.draw(utterance, self.config.data.frames, speed, rng)
        beside = self.speech.beside(number, rng)
        other = self.speech.usable(beside, self.config.seed, self.speech.load)
        if other.speaker != utterance.speaker:
            other = utterance
        reference = Cut.draw(other, self.config.reference_frames, speed, rng)
        row = self.labels(piece, number, rng)
        gain = drawn_gain(row["wave"], self.config.gain, rng)
        moment = self.centre + AHEAD
        log_f0, voiced = piece.melody(moment, BELIEVED_F0)
        reference_f0, reference_voiced = reference.melody(moment, BELIEVED_F0)
        return row | {
            "wave": row["wave"] * gain,
            "source": row["source"] * gain,
            "log_f0": log_f0,
            "voiced": voiced,
            "reference": reference.wave(),
            "reference_f0": reference_f0,
            "reference_voiced": reference_voiced,
            "cutoff": torch.tensor(piece.cutoff()),
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N); source (B, N), the same through another microphone or said by another voice;
        units (B, L, T), phonemes, log_f0 and voiced (B, T); reference (B, M) and its F0 and
        voicing; cutoff (B,) in Hz."""
        return self.augmented(stacked(self.rows(index)), index)

    def told(self, batch: Batch, lookahead: int) -> Batch:
        """A batch with the melodies that the decoder is told of pieces and references, at a
        setting of the dial: the next frame's where it waits for one."""
        if self.config.melody == "network":
            batch = with_melodies(batch, self.analysis, self.model.pitch)
        return batch | {name: told_ahead(batch[name], lookahead) for name in ("log_f0", "voiced")}

    def mel(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> log-mel (B, BANDS, T), without gradients, in float32."""
        return analysed(self.analysis, wave)[:, :BANDS]

    def encode(self, batch: Batch, lookahead: int) -> Encoded:
        """Content at a setting of the dial, and styles."""
        with torch.set_grad_enabled(self.config.train_encoder and torch.is_grad_enabled()):
            (content,) = self.model.encoder.contents(self.mel(batch["source"]), (lookahead,))
        reference = self.mel(batch["reference"])
        melody = torch.stack([batch["reference_f0"], batch["reference_voiced"]], 1)
        acoustic, prosodic = (style.float() for style in self.model.styles_of(reference, melody))
        if self.model.decoder.training:
            share = self.config.without_tokens
            kept = torch.rand(len(acoustic), 1, device=acoustic.device) >= share
            acoustic = torch.cat([acoustic[:, :STYLE], acoustic[:, STYLE:] * kept], 1)
        return Encoded(
            content,
            energies_of(self.mel(batch["wave"]), lookahead),
            acoustic,
            prosodic,
            prosody_of(
                batch["reference_f0"], batch["reference_voiced"], energy_of(reference)[:, 0]
            ),
        )

    def decoded(self, encoded: Encoded, log_f0: Tensor, batch: Batch, style: Tensor) -> Tensor:
        """The decoder's wave (B, N') of a melody (B, T), aligned with `target`."""
        content = encoded.content
        decoder = self.model.decoder
        if decoder.training:
            content = noisy(content, self.config.noise)
        wave, _ = decoder(
            content,
            log_f0,
            batch["voiced"],
            encoded.energy,
            self.model.decoding(style).float(),
            decoder.initial(len(content)),
        )
        aligned: Tensor = wave[:, 0, HOP - self.centre :].float()
        return aligned

    def target(self, batch: Batch) -> Tensor:
        """The recorded wave (B, N') where the decoder has completed it."""
        wave: Tensor = batch["wave"]
        return wave[:, : wave.shape[1] - (HOP - self.centre)]

    def warmed(self, wave: Tensor) -> Tensor:
        """Without the beginning, where the networks have heard too little."""
        return wave[:, self.config.warm * HOP :]

    def judged(self, wave: Tensor) -> JudgedWave:
        """A wave (B, N) and how the judge hears it; gradients reach the wave."""
        return JudgedWave(wave, self.judge.layers(wave) if self.config.needs_judge else [])

    def outputs(self, batch: Batch, step: int) -> Outputs:
        """What the model decodes of a batch, at the dial's setting whose turn it is."""
        settings, weights = self.model.encoder.lookaheads, self.config.weights
        lookahead = settings[step % len(settings)]
        batch = self.told(batch, lookahead)
        encoded = self.encode(batch, lookahead)
        conversion, heard = None, encoded
        if step >= self.config.foreign_from and self.config.converts:
            log_f0 = in_next_register(batch["log_f0"], encoded.prosody)
            wave = self.decoded(encoded, log_f0, batch, encoded.acoustic.roll(1, 0))
            conversion = self.judged(wave)
            if self.model.decoder.training:
                content = self.content_of_conversion(wave, encoded.content, lookahead)
                heard = replace(encoded, content=content)
        own = self.decoded(heard, batch["log_f0"], batch, encoded.acoustic)
        with torch.no_grad():
            target = self.judged(self.target(batch))
        reconstruction = self.judged(own) if weights.adversarial else JudgedWave(own, [])
        return Outputs(encoded, reconstruction, target, conversion)

    def content_of_conversion(self, wave: Tensor, content: Tensor, lookahead: int) -> Tensor:
        """The content (B, Z, T), of the first rows as it is heard of their conversion (B, N').

        What the decoder restores from that in the speaker's own voice cannot come from the
        speaker's own sound (the cycle of StyleTTS-VC, section 3.3).
        """
        rows = round(self.config.cycle * len(wave))
        if not rows:
            return content
        heard = F.pad(wave[:rows].detach(), (0, HOP - self.centre))
        with torch.set_grad_enabled(self.config.train_encoder and torch.is_grad_enabled()):
            (again,) = self.model.encoder.contents(self.mel(heard), (lookahead,))
        return torch.cat([again, content[rows:]])

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """What the discriminators minimise, or everything that the converter does."""
        config, weights = self.config, self.config.weights
        opposed = weights.adversarial > 0 and step >= config.adversarial_from
        if phase == "discriminator" and not opposed:
            return {}
        if "outputs" not in batch:
            batch["outputs"] = self.outputs(batch, step)
        outputs: Outputs = batch["outputs"]
        encoded, target, cutoff = outputs.encoded, outputs.target, batch["cutoff"]
        if phase == "discriminator":
            fakes = outputs.fakes()
            return {"discriminator": self.opponents.loss(target, fakes, cutoff, step)}
        reconstruction = outputs.reconstruction.wave
        made, true = self.warmed(reconstruction), self.warmed(target.wave)
        losses = {"stft": self.stft(made, true, cutoff)}
        if weights.mel:
            losses["mel"] = self.modules["mels"](made, true, 2 * cutoff)
        if config.train_encoder:
            values = unit_losses(
                self.heads(noisy(encoded.content, config.noise)), batch["units"], batch["phonemes"]
            )
            losses |= {name: values[name] for name in ("units", "phonemes")}
            losses["metric/encoder_units"] = values["metric/units_right"]
        if config.train_styles:
            with torch.autocast(reconstruction.device.type, enabled=False):
                losses["prosody"] = encoded.prosody.loss(self.model.targets(encoded.prosodic))
        if outputs.conversion is not None:
            losses |= self.foreign_losses(outputs.conversion, target, batch)
        if opposed and step >= config.adversarial_from + config.head_start:
            losses |= self.opponents.convinced(target, outputs.fakes(), cutoff, step)
        return losses

    def foreign_losses(
        self, conversion: JudgedWave, target: JudgedWave, batch: Batch
    ) -> dict[str, Tensor]:
        """Whether the words are still there in another voice, and whether it is that voice."""
        weights, warm, losses = self.config.weights, self.config.warm, {}
        if weights.words:
            frames = conversion.layers[-1].shape[-1]
            logits = [x[..., warm:] for x in self.judge.logits(conversion.layers[-1])]
            values = unit_losses(
                logits, batch["units"][..., warm:frames], batch["phonemes"][:, warm:frames]
            )
            losses["words"] = values["units"] + (values["phonemes"] if weights.phonemes else 0)
            losses["metric/said_units"] = values["metric/units_right"]
            losses["metric/said_phonemes"] = values["metric/phonemes_right"]
        if weights.listening:
            pairs = [
                (conversion.layers[k][..., warm:].float(), target.layers[k][..., warm:].float())
                for k in LISTENED
            ]
            losses["listening"] = torch.stack(
                [(x - y).abs().mean() / y.abs().mean() for x, y in pairs]
            ).mean()
        if weights.heard:
            losses |= self.heard.losses(conversion.wave, target.wave, warm * HOP)
        if weights.foreign or weights.leak:
            with torch.no_grad():
                own = self.speaker(batch["reference"])
            heard = self.speaker(conversion.wave)
            losses["foreign"] = cosine_distance(heard, own.roll(1, 0))
            likeness = 1 - cosine_distance(heard if weights.leak else heard.detach(), own)
            losses["leak" if weights.leak else "metric/leak"] = likeness
        return losses

    def validate(self, step: int) -> dict[str, float]:
        """The same on speakers that are held out, at the dial's second setting."""
        return self.held_out_losses("converter", 1)

    def sample(self, step: int) -> Samples:
        """A piece, its reconstruction, and the same in the voice of another row."""
        lookahead = self.model.encoder.lookaheads[-1]
        batch = self.told(moved(self.batch(0), self.device()), lookahead)
        encoded = self.encode(batch, lookahead)
        own, other = (
            self.decoded(encoded, batch["log_f0"], batch, style)
            for style in (encoded.acoustic, encoded.acoustic.roll(1, 0))
        )
        sounds = {"true": self.target(batch)[0], "made": own[0], "converted": other[0]}
        whole = {name: wave[None, : len(wave) // HOP * HOP] for name, wave in sounds.items()}
        return Samples(sounds, {name: self.mel(wave)[0].cpu() for name, wave in whole.items()})
