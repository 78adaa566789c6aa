"""Stage `stream`: decoder and style encoders of the streaming model, from labelled speech.

The waveform itself is the target; its style comes from another stretch of the same speaker. On top,
each switched on by its factor: speaker embeddings distilled into the acoustic style and compared
between speech and reconstruction, a discriminator of spectrograms, and output matching: with a
foreign style, what the encoder's content decodes to must sound like what an averaged decoder makes
of the labelled content (StyleTTS-VC, section 3.3, matches outputs rather than latents too), and
like the person whose style it is. The encoder may learn with the decoder; it is then shown another
speaker's version of the waveform that the decoder must restore (`heard_as`, the information
perturbation of NANSY, Choi et al. 2021, section 3.2), which leaves it nothing to gain from passing
the voice on.
"""

from collections.abc import Collection
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.spectral import BandedSTFT
from rtvc.data.augment import augment, drawn_gain
from rtvc.data.labelled import Cut, Utterance
from rtvc.data.seeds import generator
from rtvc.errors import ConfigError
from rtvc.models.streaming.analysis import BANDS
from rtvc.models.streaming.model import StreamingConverter
from rtvc.models.styletts2.discriminators import MultiResolutionDiscriminator, Verdict
from rtvc.train.config import RunConfig
from rtvc.train.losses.losses import (
    feature_matching,
    frame_cross_entropy,
    lsgan_discriminator,
    lsgan_generator,
)
from rtvc.train.losses.matching import SteadyDecoder
from rtvc.train.losses.prosody_targets import in_next_register, low_passed, prosody_of
from rtvc.train.losses.speaker import EMBEDDING, SpeakerEncoder, cosine_distance
from rtvc.train.material.stream_data import PITCH_OFFSET, StreamStage, frozen, stacked
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Samples
from rtvc.train.streaming.stream_config import PARTS, STYLES, StreamConfig

BELIEVED_F0 = 550.0
"""Hz; estimates above it are mostly mistakes."""


class Stream(StreamStage):
    """Trains the parts of `PARTS`, and `encoder` where configured."""

    config_type: ClassVar[type[RunConfig]] = StreamConfig

    def __init__(self, config: StreamConfig) -> None:
        super().__init__(config)
        if (config.weights.matching or config.weights.foreign) and config.labels_every == 1:
            raise ConfigError(
                "weights.matching and weights.foreign need what the encoder hears: set labels_every"
                " to 2 or more"
            )
        self.config = config
        self.model = StreamingConverter(config.model)
        self.analysis, weights = self.model.analysis, config.weights
        self.head = nn.Linear(self.model.affine.in_features, EMBEDDING)
        self.stft = BandedSTFT()
        parts = [part for part in PARTS if config.train_styles or part not in STYLES]
        parts += ["encoder"] if config.train_encoder else []
        self.modules: dict[str, nn.Module] = {
            name: getattr(self.model, name) for name in (*PARTS, "encoder", "analysis")
        }
        self.modules["stft"] = self.stft
        self.phases = {"generator": list(parts)}
        self.averaged = parts
        if not config.train_encoder:
            frozen(self.model.encoder)
        if not config.train_styles:
            for name in STYLES:
                frozen(getattr(self.model, name))
        self.speaker: SpeakerEncoder | None = None
        if weights.embedding or weights.consistency or weights.foreign:
            self.speaker = frozen(SpeakerEncoder.pretrained())
            self.modules["speaker"] = self.speaker
        if weights.embedding:
            self.modules["head"] = self.head
            self.phases = {"generator": [*parts, "head"]}
        if weights.matching:
            self.steady = SteadyDecoder(self.model.decoder, self.model.affine)
            self.modules["steady"] = self.steady
        if weights.adversarial:
            self.discriminator = MultiResolutionDiscriminator(
                **config.discriminator.model_dump(exclude={"rows"})
            )
            self.modules["discriminator"] = self.discriminator
            self.phases = {"discriminator": ["discriminator"], **self.phases}

    def begin(self, initialised: Collection[str]) -> None:
        """Refuses to decode what an untrained encoder hears; the averaged decoder begins as the
        decoder."""
        if (
            self.config.labels_every > 1
            and not self.config.train_encoder
            and "encoder" not in initialised
        ):
            raise ConfigError(
                "the stage decodes what an encoder hears, and none is given: name a run of"
                " stream_content in [[init]], or labels_every = 1"
            )
        if not self.config.train_styles and (missing := set(STYLES) - set(initialised)):
            raise ConfigError(
                f"expected weights of {', '.join(sorted(missing))} in [[init]], which train_styles"
                " = false keeps as they are, got none: name a run or `first`"
            )
        if self.config.weights.matching:
            self.steady.begin(self.model)

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """One row of `batch`."""
        piece = Cut.draw(utterance, self.config.data.frames, speed, rng)
        other = self.labelled.utterance(self.labelled.beside(number, rng), self.config.seed)[1]
        if other.speaker != utterance.speaker or utterance.exact:
            other = utterance
        reference = Cut.draw(other, self.config.reference_frames, speed, rng)
        wave = piece.wave()
        gain = drawn_gain(wave, self.config.gain, rng)
        log_f0, voiced = piece.melody(PITCH_OFFSET, BELIEVED_F0)
        reference_f0, reference_voiced = reference.melody(PITCH_OFFSET, BELIEVED_F0)
        return {
            "wave": wave * gain,
            "content": piece.content(),
            "phonemes": piece.phonemes(),
            "log_f0": log_f0,
            "voiced": voiced,
            "reference": reference.wave(),
            "reference_f0": reference_f0,
            "reference_voiced": reference_voiced,
            "cutoff": torch.tensor(piece.cutoff()),
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N); content (B, 512, T), phonemes, log_f0 and voiced (B, T) of it; reference (B,
        M) and its F0 and voicing; cutoff (B,) in Hz; source (B, N), the wave as the encoder hears
        it, where that differs."""
        batch = stacked(self.rows("stream", index, self.row))
        if self.config.heard_as is not None:
            batch["source"] = augment(
                batch["wave"], self.config.heard_as, generator(self.config.seed, "heard", index)
            )
        return batch

    def content(self, batch: Batch, features: Tensor, step: int) -> Tensor:
        """(B, 512, T): what the encoder makes of the wave's `features`, or the labels, by the
        step."""
        labels: Tensor = batch["content"]
        if step % self.config.labels_every == 0:
            return labels
        encoder = self.model.encoder
        if "source" in batch:
            features = self.analysed(batch["source"], encoder.latency)
        with torch.set_grad_enabled(self.config.train_encoder and torch.is_grad_enabled()):
            content, logits = self.recognised(encoder, features, labels.shape[-1])
        if self.config.train_encoder:
            batch["logits"] = logits
        return content

    def decoded(self, part: nn.Module, content: Tensor, batch: Batch, style: Tensor) -> Tensor:
        """content (B, 512, T) and scales and shifts (B, V) -> wave (B, N'), without its first
        `warm` frames."""
        y, _ = part(
            content,
            batch["log_f0"],
            batch["voiced"],
            batch["energy"],
            style.float(),
            self.model.decoder.initial(len(content)),
        )
        return self.aligned(y[:, 0].float())

    def aligned(self, wave: Tensor) -> Tensor:
        """A decoder's output (B, N), which is a frame late, aligned with `target`."""
        return wave[:, HOP * (1 + self.config.warm) :]

    def target(self, wave: Tensor) -> Tensor:
        """wave (B, N) -> what `aligned` output should be."""
        return wave[:, HOP * self.config.warm : -HOP]

    def forward(self, batch: Batch, step: int) -> Batch:
        """Styles and reconstruction, computed once a step and kept in the batch."""
        if "output" in batch:
            return batch
        features = self.analysed(batch["wave"], self.model.encoder.latency)
        frames = batch["log_f0"].shape[1]
        energy = energy_of(features[:, :BANDS])[:, 0]
        batch["energy"] = torch.stack([energy[:, 1 : 1 + frames], energy[:, 2 : 2 + frames]], 1)
        f0, voiced = batch["reference_f0"], batch["reference_voiced"]
        reference = self.analysed(batch["reference"])[:, :BANDS, 1 : 1 + f0.shape[1]]
        batch["prosody"] = prosody_of(f0, voiced, energy_of(reference)[:, 0])
        acoustic, prosodic = self.model.styles_of(reference, torch.stack([f0, voiced], 1))
        batch["acoustic"], batch["prosodic"] = acoustic.float(), prosodic.float()
        batch["decoded_content"] = self.content(batch, features, step)
        style = self.model.affine(batch["acoustic"])
        batch["output"] = self.decoded(self.model.decoder, batch["decoded_content"], batch, style)
        batch["target"] = self.target(batch["wave"])
        return batch

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """The discriminator's loss, or everything that the decoder and the style encoders
        minimise."""
        config, weights = self.config, self.config.weights
        # Noise is told from speech by anything: a discriminator would learn nothing from a decoder
        # that has just begun, and teach it nothing.
        judged = bool(weights.adversarial) and step >= config.adversarial_from
        if phase == "discriminator" and not judged:
            return {}
        self.forward(batch, step)
        output, target, cutoff = batch["output"], batch["target"], batch["cutoff"]
        shown = slice(config.discriminator.rows)
        if phase == "discriminator":
            of_target, of_output = (
                [v.logits for v in self.verdicts(wave[shown], cutoff[shown])]
                for wave in (target, output.detach())
            )
            return {"discriminator": lsgan_discriminator(of_target, of_output)}
        # The recording itself is the target: its style came from another stretch of the speaker,
        # so the decoder cannot copy what belongs to the piece.
        losses = {"stft": self.stft(output, target, cutoff)}
        # Distances of styles and embeddings are small differences of large numbers, for which
        # bfloat16 is too coarse.
        with torch.autocast(output.device.type, enabled=False):
            losses["prosody"] = batch["prosody"].loss(self.model.targets(batch["prosodic"]))
            if weights.embedding:
                # While the head is new its gradient is noise, which the style must not follow.
                acoustic = batch["acoustic"]
                guess = self.head(acoustic.detach() if step < config.head_steps else acoustic)
                losses["embedding"] = cosine_distance(F.normalize(guess, dim=1), self.voice(batch))
            # What a rough decoder says is no speech to a speaker encoder; and not every step has to
            # pay for one that listens to all that was decoded, with gradients.
            due = step >= config.consistency_from and step % config.consistency_every == 0
            if weights.consistency and due:
                losses["consistency"] = self.unlike(output, self.voice(batch))
        # There are logits where the encoder learns along: its content must stay what the labels
        # say, or encoder and decoder would agree on a code of their own, which carries the voice.
        if "logits" in batch:
            warm = config.warm
            off = batch["decoded_content"] - batch["content"]
            losses["content"] = off[..., warm:].abs().mean()
            losses["phonemes"] = frame_cross_entropy(
                batch["logits"][..., warm:], batch["phonemes"][:, warm:]
            )
        # In a step that decodes labels there is nothing to match: the decoder would be compared
        # with its own average.
        encoded = step % config.labels_every != 0
        due = step >= config.matching_from and step % config.matching_every == 0
        if (weights.matching or weights.foreign) and encoded and due:
            losses |= self.converted(batch)
        if judged:
            # The decoder needs no gradient through the verdicts on recordings.
            with torch.no_grad():
                real = self.verdicts(target[shown], cutoff[shown])
            fake = self.verdicts(output[shown], cutoff[shown])
            losses["adversarial"] = lsgan_generator([v.logits for v in fake])
            losses["features"] = feature_matching(
                [f for v in real for f in v.features], [f for v in fake for f in v.features]
            )
        return losses

    def verdicts(self, wave: Tensor, cutoff: Tensor) -> list[Verdict]:
        """Of waves (B, N), shown without the band that the recordings lack."""
        verdicts: list[Verdict] = self.discriminator(low_passed(wave, cutoff)[:, None])
        return verdicts

    def converted(self, batch: Batch) -> dict[str, Tensor]:
        """The encoder's content in the voice and register of another row: its distance from what
        the averaged decoder makes of the labels, and how far the voice is from that row's."""
        weights, style = self.config.weights, batch["acoustic"].detach().roll(1, 0)
        batch = batch | {"log_f0": in_next_register(batch["log_f0"], batch["prosody"])}
        output = self.decoded(
            self.model.decoder, batch["decoded_content"], batch, self.model.affine(style)
        )
        losses: dict[str, Tensor] = {}
        if weights.matching:
            with torch.no_grad():
                if self.model.decoder.training:  # not while validating
                    self.steady.follow(self.model)
                target = self.decoded(
                    self.steady["decoder"], batch["content"], batch, self.steady["affine"](style)
                )
            everything = torch.full_like(batch["cutoff"], SAMPLE_RATE)
            losses["matching"] = self.stft(output, target, everything)
        if weights.foreign:
            with torch.autocast(output.device.type, enabled=False):
                losses["foreign"] = self.unlike(output, self.voice(batch).roll(1, 0))
        return losses

    def voice(self, batch: Batch) -> Tensor:
        """Speaker embeddings (B, 256) of the references, kept in the batch."""
        if "voice" not in batch:
            assert self.speaker is not None
            with torch.no_grad():
                batch["voice"] = self.speaker(batch["reference"])
        voice: Tensor = batch["voice"]
        return voice

    def unlike(self, wave: Tensor, voice: Tensor) -> Tensor:
        """The cosine distance of what (B, N) sounds like from speaker embeddings (B, 256)."""
        assert self.speaker is not None
        return cosine_distance(self.speaker(wave), voice)

    def validate(self, step: int) -> dict[str, float]:
        """On held-out utterances, with labelled content and, where there is an encoder, with what
        it hears."""
        rows = self.held_out(self.row)
        if not rows:
            return {}
        values = {}
        for name, number in (("stft_labels", 0), ("stft", 1)):
            batch = self.forward(moved(stacked(rows), self.device()), number)
            values[name] = float(self.stft(batch["output"], batch["target"], batch["cutoff"]))
            if self.speaker is not None:
                likeness = self.speaker(batch["output"]) * self.speaker(batch["reference"])
                values[name.replace("stft", "similarity")] = float(likeness.sum(1).mean())
        return values

    def sample(self, step: int) -> Samples:
        """A piece, its reconstruction, and the same in the voice of another row."""
        batch = self.forward(moved(self.batch(0), self.device()), 1)
        style = self.model.affine(batch["acoustic"].roll(1, 0))
        other = self.decoded(self.model.decoder, batch["decoded_content"], batch, style)
        sounds = {"true": batch["target"][0], "made": batch["output"][0], "converted": other[0]}
        mels = {
            name: self.analysed(wave[None, : len(wave) // HOP * HOP])[0, :BANDS].cpu()
            for name, wave in sounds.items()
        }
        return Samples(sounds, mels)
