"""What the stages on units share: pieces of labelled speech as batches, and the cross entropies of
what is told of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from rtvc.audio.energy import energy as energy_of
from rtvc.data.augment import AugmentConfig, augment, drawn_speed
from rtvc.data.seeds import generator, numpy_generator
from rtvc.data.speech import Cut, Speech
from rtvc.data.symbols import SYMBOLS
from rtvc.data.utterance import UNKNOWN, Utterance
from rtvc.models.streaming.analysis import BANDS, Analysis
from rtvc.models.streaming.dial import ahead_of
from rtvc.models.streaming.pitch import PitchNet
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.losses import frame_cross_entropy
from rtvc.train.losses.shares import METRIC, means, share, weighed
from rtvc.train.material.stream_data import CLEAN, stacked
from rtvc.train.material.units import CLUSTERS, LAYERS
from rtvc.train.prefetch import moved
from rtvc.train.stage import Batch, Stage

MELODIES = (("wave", "log_f0", "voiced"), ("reference", "reference_f0", "reference_voiced"))
"""What batches of stage `joint` hold of sounds, and of the F0 and voicing of each."""
LABELS = ("units", "phonemes")
"""Losses that are cross entropies of a batch's labels of the same name."""


class SpeechConfig(Section):
    """Where the labelled speech is and how it is fed."""

    labelled: list[Path] = Field(min_length=1)
    """Folders that `rtvc data label` wrote."""
    shares: list[float] | None = None
    """How much of each batch comes of each folder; default: equal shares."""
    batch: int = Field(default=12, ge=1)
    frames: int = Field(default=240, ge=16)
    """Length of the pieces, 12.5 ms a frame."""
    temper: float = Field(default=0.5, ge=0, le=1)
    """Speakers are drawn with weights of (number of utterances)^temper."""
    warp: float = Field(default=0.2, ge=0, lt=0.7)
    """Largest log-ratio of the speed at which pieces are played."""
    warp_share: float = Field(default=0.6, ge=0, le=1)
    """How often it is changed."""
    shortest: float = Field(default=1.5, ge=0)
    """Seconds below which utterances are left out."""
    held_out: int = Field(default=64, ge=0)
    """Utterances of speakers that are kept for held-out measurements."""
    kept: int = Field(default=512, ge=1)
    """Utterances kept in memory, about 0.5 MB each."""

    def speech(self, *, with_text: bool = False) -> Speech:
        """The utterances, or those of them that have a transcript."""
        return Speech(
            self.labelled,
            self.shares,
            shortest=self.shortest,
            held_out=self.held_out,
            kept=self.kept,
            temper=self.temper,
            with_text=with_text,
        )


class SpeechRun(RunConfig):
    """What the configurations of the stages on units have in common."""

    data: SpeechConfig
    augment: AugmentConfig = CLEAN
    copies: float = Field(default=0.3, ge=0, le=1)
    """Share of the rows in which a converted copy is heard, where there is one (`rtvc copies`)."""
    warm: int = Field(default=16, ge=0)
    """Frames at the beginning of a piece that losses ignore: a causal network has heard too
    little."""


class SpeechStage(Stage):
    """Pieces of labelled speech; `centre` says how many samples after its beginning a frame is
    labelled."""

    centre = 0
    from_frame = 0
    """Of a piece: the first whose labels the cross entropies count."""

    def __init__(self, config: SpeechRun) -> None:
        self.settings = config
        self.speech = config.data.speech()

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """wave and source (N,), units (L, T), phonemes (T,), UNKNOWN beyond the end: one row."""
        return self.labels(Cut.draw(utterance, self.settings.data.frames, speed, rng), number, rng)

    def labels(self, piece: Cut, number: int, rng: np.random.Generator) -> Batch:
        """The same of a piece that is drawn already; the source may be a copy of it in another
        voice."""
        outside = ~piece.within(self.centre)
        wave = piece.wave()
        source = wave
        if (
            rng.random() < self.settings.copies
            and (copy := self.speech.copy_of(number, rng)) is not None
        ):
            copied = replace(piece.utterance, audio=copy)
            source = Cut(copied, piece.start, piece.speed, piece.frames).wave()
        return {
            "wave": wave,
            "source": source,
            "units": piece.units(self.centre).masked_fill(outside, UNKNOWN),
            "phonemes": piece.phonemes(self.centre).masked_fill(outside, UNKNOWN),
        }

    def rows(self, index: int) -> list[Batch]:
        """The rows of a batch: a function of (seed, index)."""
        data, seed = self.settings.data, self.settings.seed
        rng = numpy_generator(seed, "speech", index)
        rows = []
        for _ in range(data.batch):
            speed = drawn_speed(data.warp, data.warp_share, rng)

            def use(number: int, speed: float = speed) -> Batch:
                return self.row(self.speech.load(number), number, speed, rng)

            rows.append(self.speech.usable(self.speech.pick(rng), seed, use))
        return rows

    def augmented(self, batch: Batch, index: int) -> Batch:
        """A batch whose `source` (B, N) is as a microphone might have brought it."""
        return batch | {
            "source": augment(
                batch["source"],
                self.settings.augment,
                generator(self.settings.seed, "heard", index),
            )
        }

    def held_out(self) -> list[tuple[Batch, str]]:
        """Rows of the held-out utterances at their own speed, and their speakers."""
        rng = numpy_generator(0, "held out")
        speakers, load = self.speech.speakers, self.speech.load
        return [
            self.speech.usable(number, 0, lambda k: (self.row(load(k), k, 1.0, rng), speakers[k]))
            for number in self.speech.held_out
        ]

    def held_out_batches(self) -> list[tuple[Batch, list[str]]]:
        """The same as batches of at most the training's size."""
        rows, size = self.held_out(), self.settings.data.batch
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [
            (stacked([row for row, _ in part]), [speaker for _, speaker in part]) for part in parts
        ]

    def held_out_losses(self, phase: str, step: int) -> dict[str, float]:
        """The losses and metrics of a phase on the held-out speakers, as recorded: a cross entropy
        and a share over the frames that have such a label, others over rows. What nothing has a
        label for is left out; empty where there are no such speakers."""
        totals: dict[str, Tensor] = {}
        for rows, names in self.held_out_batches():
            batch = moved(rows, self.device())
            for name, value in self.losses(phase, batch, step).items():
                key = name.removeprefix(METRIC)
                labels = batch[name][..., self.from_frame :] if name in LABELS else None
                weight = len(names) if labels is None else int((labels != UNKNOWN).sum())
                pair = weighed(value, weight)
                totals[key] = totals[key] + pair if key in totals else pair
        return means(totals)

    def remarks(self) -> list[str]:
        """Utterances that could not be used."""
        return self.speech.remarks()


class Heads(nn.Module):
    """content (B, Z, T) -> logits of the units (B, K, T) of every layer, and of the phonemes (B, P,
    T)."""

    def __init__(self, content: int, layers: int = len(LAYERS), clusters: int = CLUSTERS) -> None:
        super().__init__()
        self.sizes = [clusters] * layers + [len(SYMBOLS)]
        self.out = nn.Linear(content, sum(self.sizes))

    def forward(self, content: Tensor) -> list[Tensor]:
        """See the class; the phonemes come last."""
        logits: Tensor = self.out(content.mT).mT
        return list(logits.split(self.sizes, 1))


def share_right(logits: Tensor, classes: Tensor) -> Tensor:
    """The share of known frames (B, T) whose class the logits (B, K, T) name, as `share` gives
    it."""
    return share(logits.argmax(1) == classes, classes != UNKNOWN)


def unit_losses(logits: list[Tensor], units: Tensor, phonemes: Tensor) -> dict[str, Tensor]:
    """Logits of `Heads` against units (B, L, T) and phonemes (B, T) -> the cross entropy of both;
    the shares of right ones as metrics."""
    *layers, spoken = logits
    losses = [frame_cross_entropy(x, units[:, layer]) for layer, x in enumerate(layers)]
    with torch.no_grad():
        right = {
            "metric/units_right": share_right(layers[-1], units[:, -1]),
            "metric/phonemes_right": share_right(spoken, phonemes),
        }
    return {
        "units": torch.stack(losses).mean(),
        "phonemes": frame_cross_entropy(spoken, phonemes),
        **right,
    }


def analysed(analysis: Analysis, wave: Tensor) -> Tensor:
    """wave (B, N) -> what the analysis hears (B, C, T), without gradients, in float32."""
    with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
        features: Tensor
        features, _ = analysis(wave[:, None], analysis.initial(len(wave)))
    return features


def energies_of(mel: Tensor, lookahead: int) -> Tensor:
    """mel (B, M, T) -> the energy of each frame and, where the dial waits for it, of the next (B,
    2, T); the last is its own next."""
    energy = energy_of(mel)
    return torch.cat([energy, told_ahead(energy, lookahead)], 1)


def told_ahead(x: Tensor, lookahead: int) -> Tensor:
    """x (…, T) of a frame -> what the decoder is told of it ahead, at a setting of the dial."""
    return following(x, ahead_of(lookahead))


def following(x: Tensor, frames: int) -> Tensor:
    """x (…, T) that many frames earlier; the last ones are their own followers."""
    return torch.cat([x[..., frames:], x[..., x.shape[-1] - frames :]], -1)


def with_melodies(batch: Batch, analysis: Analysis, pitch: PitchNet) -> Batch:
    """A batch whose F0 and voicing of pieces and references (B, T) are what a pitch network says in
    a stream, without gradients."""
    told = dict(batch)
    for sound, f0, voiced in MELODIES:
        told[f0], told[voiced] = melody_of(batch[sound], analysis, pitch).unbind(1)
    return told


@torch.no_grad()
def melody_of(wave: Tensor, analysis: Analysis, pitch: PitchNet) -> Tensor:
    """wave (B, N) -> log F0 and voicing (B, 2, T) as a pitch network says them in a stream, without
    gradients."""
    features = analysed(analysis, wave)[:, BANDS:]
    melody: Tensor
    melody, _ = pitch(features, pitch.initial(len(features)))
    return melody.float()
