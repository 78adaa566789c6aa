"""What stages 1 and 2 of StyleTTS-VC share: texts aligned with utterances, and pieces of their
content."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rtvc.models.styletts_vc.text_aligner import TextAligner
from rtvc.models.styletts_vc.text_encoder import padding_mask
from rtvc.train.config import DataConfig, RunConfig
from rtvc.train.material import components
from rtvc.train.material.align import Aligned, align, cut
from rtvc.train.material.recorded import UtteranceStage
from rtvc.train.stage import Batch


class TextConfig(RunConfig):
    """Configuration of a stage that aligns texts."""

    data: DataConfig
    model: components.ModelConfig = components.ModelConfig()
    attention_over: Literal["frames", "tokens"] = "frames"
    """What soft attention is normalised over."""
    hard_share: float = Field(default=0.5, ge=0, le=1)
    """How often content is spread by the monotonic path rather than by soft attention, which can
    carry the speaker."""
    longest_piece: int = Field(default=400, ge=90, le=100_000)
    """Mel frames of a piece that is decoded."""


class TextStage(UtteranceStage):
    """Has a text encoder, a style encoder and a decoder; a subclass adds the aligner."""

    text_aligner: TextAligner

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config.data, config.seed, reference="any")
        self.settings = config
        self.text_encoder = components.text_encoder(config.model)
        self.style_encoder = components.style_encoder(config.model)
        self.decoder = components.decoder(config.model)

    def aligned(self, batch: Batch) -> Aligned:
        """The texts of a batch and its utterances."""
        mel, frames, tokens, lengths = (
            batch[name] for name in ("mel", "frames", "tokens", "lengths")
        )
        over = self.settings.attention_over
        return align(self.text_aligner, mel, frames, tokens, lengths, over)

    def pieces(
        self, batch: Batch, aligned: Aligned, *rows: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """A random piece of each utterance, of one length: content (B, C, T), mel (B, 80, 2 T), and
        of each of `rows` (B, T') at the rate of content (B, T)."""
        tokens, lengths = batch["tokens"], batch["lengths"]
        text = self.text_encoder(tokens, lengths, padding_mask(lengths, tokens.shape[1]))
        hard = float(torch.rand(())) < self.settings.hard_share
        content = text @ (aligned.hard if hard else aligned.soft).to(text.dtype)
        half = min(int(aligned.frames.min()) - 1, self.settings.longest_piece // 2)
        starts = (torch.rand(len(tokens)) * (aligned.frames.cpu() - half + 1)).long()
        (content,), (mel,) = cut(starts, half, content), cut(2 * starts, 2 * half, batch["mel"])
        return content, mel, [cut(starts, half, row)[0] for row in rows]
