"""Who loses the words: the same pairs again and again, each time with one more part of the model in
play.

A recording said again in its own voice, from labels in place of what the encoder hears, has lost
words to labels and decoder alone; with the encoder, to the encoder as well; in another's voice, to
converting. Speech of the teacher has exact content, which leaves the decoder alone. A converter
with a latency dial has no labels that its decoder could read; what its encoder hears where it waits
longest stands in their place.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtvc.audio.io import decode, mono
from rtvc.audio.recording import prepare
from rtvc.evaluate.audio import Wave
from rtvc.evaluate.converter import LibraryConverter, streamed
from rtvc.evaluate.evaluators import Evaluators
from rtvc.evaluate.pairs import Pair
from rtvc.evaluate.run import ConvertFn, evaluate_pairs
from rtvc.evaluate.studies.compare import Difference, compare
from rtvc.layers.contract import Streaming
from rtvc.models.streaming.assets import StreamingModel
from rtvc.models.streaming.dial import DialConverter

PIECE = 800
"""Frames converted at a time."""
Labels = Callable[[Path], Tensor]
"""A recording -> its content (C, T), frame t for what sounds at sample t * HOP."""


class Row(NamedTuple):
    """One way of saying the pairs again: with the encoder or with labels, in the source's own voice
    or in the target's."""

    title: str
    labels: str | None
    own_voice: bool


class Step(NamedTuple):
    """What a part costs: how much worse one row is than another."""

    title: str
    before: str
    after: str


SOURCE = "source"
"""The row of the recordings themselves."""
ROWS = (
    Row("labels, own voice", "labels", True),
    Row("encoder, own voice", None, True),
    Row("labels, target's voice", "labels", False),
    Row("encoder, target's voice", None, False),
)
STEPS = (
    Step("labels and decoder", SOURCE, "labels, own voice"),
    Step("encoder", "labels, own voice", "encoder, own voice"),
    Step("encoder, converting", "labels, target's voice", "encoder, target's voice"),
    Step("converting", "encoder, own voice", "encoder, target's voice"),
)
DIAL_ROWS = (
    Row("longest look-ahead, own voice", "longest", True),
    Row("encoder, own voice", None, True),
    Row("longest look-ahead, target's voice", "longest", False),
    Row("encoder, target's voice", None, False),
)
DIAL_STEPS = (
    Step("hearing and decoder", SOURCE, "longest look-ahead, own voice"),
    Step("waiting less", "longest look-ahead, own voice", "encoder, own voice"),
    Step(
        "waiting less, converting", "longest look-ahead, target's voice", "encoder, target's voice"
    ),
    Step("converting", "encoder, own voice", "encoder, target's voice"),
)
TEACHER_ROWS = (
    Row("exact content, own voice", "exact", True),
    Row("labels, own voice", "labels", True),
    Row("encoder, own voice", None, True),
)
TEACHER_STEPS = (
    Step("decoder", SOURCE, "exact content, own voice"),
    Step("labels", "exact content, own voice", "labels, own voice"),
    Step("encoder", "labels, own voice", "encoder, own voice"),
)


class Told(Streaming):
    """In the encoder's place: says what it was told, whatever it hears."""

    def __init__(self, content: Tensor, latency: int, late: int) -> None:
        """content (C, T) as `Labels` gives it; `late` frames pass before its first comes."""
        super().__init__()
        self.content, self.latency, self.late = content, latency, late
        self.lookahead = latency

    def initial(self, batch: int) -> Tensor:
        """How many frames were heard, (B,)."""
        return torch.zeros(batch, dtype=torch.long)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (1, M, T) -> content (1, C, T); its first and last frames stand for what lies
        outside."""
        place = (state[0] + torch.arange(x.shape[-1]) - self.late).clamp(
            0, self.content.shape[1] - 1
        )
        return self.content[None, :, place].to(x), state + x.shape[-1]


def told(converter: StreamingModel, content: Tensor) -> StreamingModel:
    """The converter with content (C, T) in place of what its encoder hears; all else is shared.

    The only place that knows how a model's content lies in time: the encoder's answer comes its own
    latency after what it answers to. Frame j of the first generation's analysis is centred on
    sample (j - 1) * HOP; content of a dial is counted by the frames of its own analysis.
    """
    twin = copy.copy(converter)
    twin._modules = dict(converter._modules)
    latency = int(converter.encoder.latency)
    twin._modules["encoder"] = Told(
        content, latency, latency + (not isinstance(converter, DialConverter))
    )
    return twin


def said_again(converter: LibraryConverter, row: Row, labels: Mapping[str, Labels]) -> ConvertFn:
    """A row as a function that converts."""

    def convert(source: Path, references: list[Path]) -> tuple[Wave, float]:
        asked = [source] if row.own_voice else references
        if row.labels is None:
            return converter(source, asked)
        wave, rate = decode(source)
        model = told(converter.streaming, labels[row.labels](source))
        y, seconds = streamed(
            model, prepare(mono(wave), rate), converter.voice(asked), PIECE * model.hop
        )
        return y.numpy(), seconds

    return convert


def where(
    converter: LibraryConverter,
    pairs: Sequence[Pair],
    labels: Mapping[str, Labels],
    rows: Sequence[Row] = ROWS,
    *,
    identity: str = "",
    cache: Path | None = None,
    recordings: Path | None = None,
    evaluators: Evaluators | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Row title -> the whole evaluation of its conversions, the recordings themselves first.

    Args:
        converter: whole recordings in plain torch.
        pairs: what is said again.
        labels: by name; rows that need others are left out.
        rows: see `Row`.
        identity: changes whenever the labels could.
        cache: as `evaluate_pairs` takes it, as the next three.
        recordings: see there.
        evaluators: see there.
        progress: told the row's title instead of a stage, and that so many of its two stages' pairs
            are done.
    """
    measured: dict[str, dict[str, Any]] = {}
    for row in (row for row in rows if row.labels is None or row.labels in labels):
        facts = f"{converter.key} {row} {identity if row.labels else ''}".encode()
        key = hashlib.sha256(facts + Path(__file__).read_bytes()).hexdigest()[:16]

        def tell(stage: str, done: int, total: int, title: str = row.title) -> None:
            if progress:
                progress(title, done + (total if stage == "measure" else 0), 2 * total)

        measured[row.title] = evaluate_pairs(
            said_again(converter, row, labels),
            pairs,
            model=f"{converter.name}: {row.title}",
            key=key,
            cache=cache,
            recordings=recordings,
            evaluators=evaluators,
            progress=tell,
        )
    return {SOURCE: of_sources(next(iter(measured.values()))), **measured}


def of_sources(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of the recordings themselves, as a result."""
    from rtvc.evaluate.summary import summarise

    names = ("errors", "errors2", "distillmos")
    pairs = [
        {name: pair[name] for name in ("pair", "references", "words")}
        | {name: pair[f"{name}_source"] for name in names}
        for pair in result["pairs"]
    ]
    return {"summary": summarise(pairs), "pairs": pairs}


def costs(
    rows: Mapping[str, Mapping[str, Any]], steps: Sequence[Step]
) -> dict[str, dict[str, Difference | None]]:
    """Step title -> what it changes of each metric, for the steps whose rows are there."""
    there = [step for step in steps if step.before in rows and step.after in rows]
    return {step.title: compare(rows[step.before], rows[step.after]) for step in there}
