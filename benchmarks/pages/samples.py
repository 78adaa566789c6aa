"""The page of samples: `python -m rtvc.benchmarks.pages.samples`.

Ten pairs (`sample_pairs.py`), each as its source, its reference and what models make of them, in
Opus files that together stay below a limit.
"""

import html
import io
import itertools
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from rtvc.benchmarks.pages.sample_pairs import (
    CHANGES,
    FASTER,
    Clip,
    SamplePair,
    chosen,
    corpora,
    median_f0,
)
from rtvc.converter import VoiceConverter
from rtvc.errors import ConfigError
from rtvc.evaluate.audio import RATE, Wave
from rtvc.files import check_target, write

LARGEST = 3_000_000
"""Bytes of all Opus files together."""
KILOBITS = (48, 40, 32, 24)
"""A second, tried in this order until everything fits."""
OPUS_KILOBITS = (6.0, 256.0)
"""What libsndfile makes of the compression levels 1 and 0, for one channel."""
SHIPPED = "shipped"
LOOKAHEADS = (25.0, 100.0)
PAGE = "index.md"

SOURCES = (
    'LibriSpeech: V. Panayotov, G. Chen, D. Povey, S. Khudanpur, "LibriSpeech: an ASR corpus based'
    ' on public domain audio books", ICASSP 2015; made of LibriVox recordings;'
    " [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/).",
    "kerstin (German) and nathalie (Dutch): voice corpora of the Rhasspy project;"
    " [CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/).",
    "SSB0139 (Mandarin) is a speaker of AISHELL-3: Y. Shi, H. Bu, X. Xu, S. Zhang, M. Li,"
    ' "AISHELL-3: a multi-speaker Mandarin TTS corpus", Interspeech 2021;'
    " [Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0).",
)
"""Who is to be named."""


class Column(NamedTuple):
    """What one model makes of every pair."""

    slug: str
    """Of its files."""
    title: str
    convert: Callable[[Wave, Wave], Wave]
    """Source and reference, (N,) and (M,) at 24 kHz -> (N,)."""


class Sound(NamedTuple):
    """One player of the page."""

    title: str
    name: str
    """Of its file."""


def column(slug: str, title: str, converter: VoiceConverter) -> Column:
    """A model as a column; its title names the latency of a stream."""

    def convert(source: Wave, reference: Wave) -> Wave:
        return converter.convert(source, RATE, converter.voice((reference, RATE)))

    late = converter.model.latency
    told = "" if late is None else f", latency {1000 * late / RATE:g} ms"
    return Column(slug, title + told, convert)


def columns_of(
    model: str, lookaheads: Sequence[float], before: str | None
) -> tuple[list[Column], list[str]]:
    """The models to hear, each look-ahead of a dial a column of its own, and sentences about the
    columns that there are not.

    Raises:
        ConfigError: no such model, or a look-ahead that its dial has not.
        CheckpointError: weights that cannot be used.
    """
    from rtvc.models.streaming.dial import DialConverter
    from rtvc.models_by_name import load

    columns, remarks = [], []
    loaded = load(named(model))
    streaming = loaded.model.streaming
    if streaming is not None and isinstance(streaming.converter, DialConverter):
        for ahead in lookaheads:
            dialled = load(named(model), lookahead=ahead)
            columns.append(column(f"ahead{ahead:g}", f"converted, {ahead:g} ms ahead", dialled))
    else:
        columns.append(column("converted", "converted", loaded))
        remarks.append(
            "This model has no latency dial: it is heard at its one latency, not at two"
            " look-aheads."
        )
    if before is None or named(before) == named(model):
        remarks.append("It stands alone: no generation before it was named.")
    else:
        columns.append(column("before", "the generation before", load(named(before))))
    return columns, remarks


def named(model: str) -> str:
    """A model as `rtvc.load` takes it."""
    return "stream" if model == SHIPPED else model


def opus(wave: Wave, kilobits: float) -> bytes:
    """wave (N,) at 24 kHz as an Opus file of so many kilobits a second."""
    import soundfile

    low, high = OPUS_KILOBITS
    sink = io.BytesIO()
    soundfile.write(
        sink,
        np.clip(wave, -1, 1),
        RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=(high - kilobits) / (high - low),
    )
    return sink.getvalue()


def encoded(waves: Mapping[str, Wave], largest: int = LARGEST) -> tuple[dict[str, bytes], int]:
    """Opus files of waves (N,) at 24 kHz, by name, at the highest bit rate at which they fit into
    `largest` bytes together; and that rate in kbit/s.

    Raises:
        ConfigError: they do not fit at the lowest.
    """
    size = 0
    for kilobits in KILOBITS:
        files = {name: opus(wave, kilobits) for name, wave in waves.items()}
        size = sum(map(len, files.values()))
        if size <= largest:
            return files, kilobits
    raise ConfigError(
        f"expected at most {largest / 1e6:g} MB of Opus, got {size / 1e6:.2f} MB at"
        f" {KILOBITS[-1]} kbit/s: leave a look-ahead out"
    )


def store(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes Opus files into a folder, in place of those of an earlier page; what is there already
    and sounds the same stays as it is (each encoding has a random serial number)."""
    for old in folder.glob("[0-9][0-9]-*.opus"):
        if old.name not in files:
            old.unlink()
    for name, content in files.items():
        if not sounds_like(folder / name, content):
            write(folder / name, content)


def sounds_like(path: Path, content: bytes) -> bool:
    """Whether a file is there and holds the samples of `content`."""
    import soundfile

    try:
        old, _ = soundfile.read(path)
    except (OSError, soundfile.SoundFileError):
        return False
    return np.array_equal(old, soundfile.read(io.BytesIO(content))[0])


def spoken(clip: Clip) -> str:
    """A clip in words."""
    recording = clip.recording
    changed = f", {CHANGES[clip.change][0]}" if clip.change else ""
    return f"{recording.speaker}, {recording.path.stem}{changed}"


def players(sounds: Sequence[Sound]) -> list[str]:
    """A row of players; where a page shows none of them, links."""
    figures = [
        f'<figure style="margin: 0"><figcaption style="margin: 0">{html.escape(sound.title)}'
        f'</figcaption><audio controls preload="metadata" src="{sound.name}" style="width: 10.4rem;'
        f' max-width: 100%"><a href="{sound.name}">{sound.name}</a></audio></figure>'
        for sound in sounds
    ]
    return ['<div style="display: flex; flex-wrap: wrap; gap: 0.6rem 1rem">', *figures, "</div>"]


def page(
    pairs: Sequence[SamplePair],
    sounds: Sequence[Sequence[Sound]],
    pitches: Mapping[str, float],
    remarks: Sequence[str],
    command: str,
    facts: Mapping[str, str],
) -> str:
    """docs/samples/index.md.

    Args:
        pairs: that are heard.
        sounds: of each pair, source and reference first.
        pitches: median F0 in Hz by the name of a sound.
        remarks: sentences about the columns.
        command: that made it.
        facts: about how.
    """
    lines = [
        "# Samples",
        "",
        "Ten pairs, none of them chosen by ear: a rule takes the recordings, and what a model makes"
        " of them is here as it came out, from one reference recording, without fitting the voice.",
        "",
        *itertools.chain.from_iterable((remark, "") for remark in remarks),
    ]
    for number, (pair, row) in enumerate(zip(pairs, sounds, strict=True), start=1):
        lines += [
            f"## {number}. {pair.title}",
            "",
            f"{spoken(pair.source)}; to the voice of {spoken(pair.reference)}",
            "",
            *players(row),
            "",
        ]
    lines += [
        "## How they are chosen",
        "",
        "English voices are those of the evaluation corpus, which no training hears, ranked by the"
        " median of their F0: deep is the lowest of them, low and high are places in that order."
        " No child and no telephone is among them: a child-like voice is one of the highest played"
        f" {FASTER:g} times as fast, which moves pitch and formants as a smaller body does, and the"
        f" telephone is made: {CHANGES['telephone'][0]}. The speakers of other languages belong to"
        " the training data, since those that are kept from it are Common Voice's, whose voices do"
        " not become samples.",
        "",
        "## Recordings",
        "",
        "| pair | as | recording | speaker | median F0 | from | licence | changed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number, (pair, row) in enumerate(zip(pairs, sounds, strict=True), start=1):
        for clip, sound in zip(pair[1:], row[:2], strict=True):
            recording = clip.recording
            cells = (
                str(number),
                sound.title,
                recording.path.stem,
                recording.speaker,
                f"{pitches[sound.name]:.0f} Hz",
                recording.origin,
                recording.licence,
                CHANGES[clip.change][0] if clip.change else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
    told = "; ".join(f"{name} {value}" for name, value in facts.items())
    return "\n".join(
        [
            *lines,
            "",
            "All of them are resampled to 24 kHz and encoded as Opus; conversions are under the"
            " licence of the recording that they say.",
            "",
            *(f"- {source}" for source in SOURCES),
            "",
            f"`{command}` ({told}).",
            "",
        ]
    )


def main(
    corpus: Annotated[
        Path, typer.Option(help="folder of eval.tsv and train.tsv, recordings beside them")
    ] = Path("../shared/corpus"),
    extra: Annotated[
        Path | None, typer.Option(help="folder that the extra corpus was built in: other languages")
    ] = None,
    model: Annotated[
        str, typer.Option(help="that converts: shipped, or a file of weights")
    ] = SHIPPED,
    before: Annotated[
        str | None, typer.Option(help="the generation before: shipped, or a file of weights")
    ] = None,
    lookahead: Annotated[
        list[float] | None,
        typer.Option(help="milliseconds, where the model has a dial; repeatable; default: 25, 100"),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the page")] = Path("docs/samples"),
    largest: Annotated[int, typer.Option(help="bytes of all Opus files together", min=1)] = LARGEST,
) -> None:
    """Make the page of samples."""
    import torch

    from rtvc.train.export import commit

    check_target(out / PAGE, folders=True)
    columns, remarks = columns_of(model, lookahead or LOOKAHEADS, before)
    pairs = chosen(*corpora(corpus, extra))
    waves: dict[str, Wave] = {}
    sounds: list[list[Sound]] = []
    for number, pair in enumerate(pairs, start=1):
        source, reference = pair.source.wave(), pair.reference.wave()
        row = {"source": ("source", source), "reference": ("reference", reference)}
        for each in columns:
            row[each.slug] = (each.title, each.convert(source, reference))
        sounds.append([])
        for slug, (title, wave) in row.items():
            name = f"{number:02d}-{slug}.opus"
            waves[name] = wave
            sounds[-1].append(Sound(title, name))
        typer.echo(f"{number} of {len(pairs)}: {pair.title}", err=True)
    files, kilobits = encoded(waves, largest)
    options = {
        "--model": model,
        "--before": before,
        **{f"--lookahead {ahead:g}": "" for ahead in lookahead or ()},
    }
    words = [
        word
        for option, value in options.items()
        if value is not None
        for word in (*option.split(), *([shlex.quote(Path(value).name)] if value else []))
    ]
    facts = {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "size": f"{sum(map(len, files.values())) / 1e6:.2f} MB at {kilobits} kbit/s",
    }
    command = " ".join(["python -m rtvc.benchmarks.pages.samples", *words])
    store(out, files)
    pitches = {sound.name: median_f0([waves[sound.name]]) for row in sounds for sound in row[:2]}
    write(out / PAGE, page(pairs, sounds, pitches, remarks, command, facts))
    typer.echo(f"{out / PAGE} is written: {facts['size']}")


if __name__ == "__main__":
    typer.run(main)
