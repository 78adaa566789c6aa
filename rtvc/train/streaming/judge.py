"""Stage `judge`: a recogniser that will listen to what the decoder says in other voices
(StyleTTS-VC, section 3.3, the phoneme loss L_MI).

It learns from speech as recorded, as heard through bad microphones, and as converted, so that
neither noise nor a converter's sound misleads it. It looks both ways, and the recogniser whose
units it learns is kept out of every loss on the decoder's output.
"""

from typing import ClassVar

from torch import Tensor

from rtvc.train.config import RunConfig, Section
from rtvc.train.material.recogniser import Recogniser, RecogniserConfig
from rtvc.train.material.stream_data import stacked
from rtvc.train.material.unit_batches import SpeechRun, SpeechStage, unit_losses
from rtvc.train.stage import Batch


class Weights(Section):
    """Factors of the losses."""

    units: float = 1.0
    phonemes: float = 1.0


class JudgeConfig(SpeechRun):
    """Configuration of stage `judge`."""

    model: RecogniserConfig = RecogniserConfig()
    weights: Weights = Weights()


class Judge(SpeechStage):
    """Trains `judge`."""

    config_type: ClassVar[type[RunConfig]] = JudgeConfig

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config)
        self.config = config
        self.judge = Recogniser(config.model)
        self.modules = {"judge": self.judge}
        self.phases = {"judge": ["judge"]}
        self.averaged = ("judge",)

    def batch(self, index: int) -> Batch:
        """wave (B, N); source (B, N), the same through another microphone or said by another voice;
        units (B, L, T), phonemes (B, T)."""
        return self.augmented(stacked(self.rows(index)), index)

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """The cross entropies of units and phonemes; the shares of right ones are only logged."""
        return unit_losses(self.judge(batch["source"]), batch["units"], batch["phonemes"])

    def validate(self, step: int) -> dict[str, float]:
        """The same on speakers that are held out."""
        return self.held_out_losses("judge", step)
