"""Stage `melody`: the causal F0 and voicing network of the converter with a latency dial.

It says the pitch 6 ms after the peak of each analysis window, of which it hears 10.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rtvc.audio.mel import HOP
from rtvc.data.speech import Cut
from rtvc.data.utterance import Utterance
from rtvc.models.streaming.analysis import BANDS, Analysis
from rtvc.models.streaming.dial import DialConfig, pitch_net
from rtvc.models.streaming.pitch import AHEAD
from rtvc.train.config import RunConfig, Section
from rtvc.train.losses.pitch_losses import pitch_losses
from rtvc.train.material.first import NAME, first_generation
from rtvc.train.material.stream_data import frozen, stacked
from rtvc.train.material.unit_batches import SpeechRun, SpeechStage, analysed, following, melody_of
from rtvc.train.stage import Batch


class Weights(Section):
    """Factors of the losses."""

    f0: float = 1.0
    voicing: float = 1.0


class MelodyConfig(SpeechRun):
    """Configuration of stage `melody`."""

    model: DialConfig = DialConfig()
    weights: Weights = Weights()
    taught: Literal["labels", "first"] = "labels"
    """What F0 and voicing are learnt from: the labels, or what the first generation hears in
    the clean piece. Its voicing says how much of a frame is periodic where theirs says whether
    anything is, and a decoder whose harmonics fade sounds better than one whose harmonics stop."""
    high: float = 0.15
    """Share of pieces that are played so fast that their pitch rises by an octave or more: sung
    notes are rare in speech."""


class Melody(SpeechStage):
    """Trains `pitch`."""

    config_type: ClassVar[type[RunConfig]] = MelodyConfig

    def __init__(self, config: MelodyConfig) -> None:
        super().__init__(config)
        self.config = config
        self.analysis = Analysis(config.model.encoder.fall)
        self.centre = self.analysis.centre
        self.net = pitch_net(config.model)
        self.modules = {"analysis": self.analysis, "pitch": self.net}
        if config.taught == NAME:
            first = first_generation()
            self.teacher, self.hearing = frozen(first.pitch), frozen(first.analysis)
            self.modules |= {"teacher": self.teacher, "hearing": self.hearing}
        self.phases = {"pitch": ("pitch",)}
        self.averaged = ("pitch",)

    def row(
        self, utterance: Utterance, number: int, speed: float, rng: np.random.Generator
    ) -> Batch:
        """wave and source (N,), log_f0, voiced and known (T,): one row."""
        if rng.random() < self.config.high:
            speed *= float(np.exp2(rng.uniform(0.8, 1.6)))
        piece = Cut.draw(utterance, self.config.data.frames, speed, rng)
        moment = self.centre + AHEAD
        log_f0, _ = piece.melody(moment)
        voiced, known = (torch.from_numpy(x) for x in utterance.voicing(piece.seconds(moment)))
        wave = piece.wave()
        return {
            "wave": wave,
            "source": wave,
            "log_f0": log_f0,
            "voiced": voiced,
            "known": known * piece.within(moment),
        }

    def batch(self, index: int) -> Batch:
        """wave (B, N); source (B, N), as a microphone might have brought it; log_f0 (B, T) in log
        Hz; voiced and known (B, T), 0 or 1."""
        return self.augmented(stacked(self.rows(index)), index)

    def told(self, batch: Batch) -> Batch:
        """A batch with what is to be learnt of it, see `MelodyConfig.taught`."""
        if self.config.taught == "labels":
            return batch
        # Its windows end later than ours for the same peak: its next frame speaks for our time.
        late = round((self.analysis.centre - self.hearing.centre) / HOP)
        melody = following(melody_of(batch["wave"], self.hearing, self.teacher), late)
        log_f0, voiced = melody.unbind(1)
        known = torch.ones_like(voiced)
        known[:, known.shape[1] - late :] = 0
        heard = {"log_f0": log_f0, "voiced": voiced, "known": known}
        # Above its highest bin the network hears octaves less or nothing: the labels know better.
        sung = batch["log_f0"] > self.teacher.centres[-1]
        return batch | {name: torch.where(sung, batch[name], x) for name, x in heard.items()}

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """See `pitch_losses`."""
        batch, warm = self.told(batch), self.config.warm
        features = analysed(self.analysis, batch["source"])
        logits, _ = self.net.logits(features[:, BANDS:], self.net.initial(len(features)))
        labels = (batch[name][:, warm:] for name in ("log_f0", "voiced", "known"))
        return pitch_losses(self.net.centres, logits[:, warm:], *labels)

    def validate(self, step: int) -> dict[str, float]:
        """The same on speakers that are held out, as recorded."""
        return self.held_out_losses("pitch", step)
