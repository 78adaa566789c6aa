"""A folder to listen through a result: a page without any dependency, recordings and pictures
beside it."""

import difflib
import html
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtvc.audio.io import write as write_audio
from rtvc.evaluate.audio import RATE, Wave, read
from rtvc.evaluate.judges.pitch import METHOD
from rtvc.evaluate.pairs import Pair
from rtvc.evaluate.picture import overview, spectrograms
from rtvc.evaluate.ranking import worst_first
from rtvc.evaluate.summary import METRICS
from rtvc.evaluate.text import normaliser
from rtvc.files import write

WORST = 10
COLUMNS = (
    *(
        "wer",
        "wer_source",
        "wer2",
        "wer2_source",
        "secs_target",
        "secs_source",
        "secs2_target",
        "secs2_source",
    ),
    *("dnsmos_ovrl", "distillmos", "distillmos_source", "f0_pcc", "rtf"),
)
HEARD = {
    "heard": "heard",
    "heard2": "heard by the second recogniser",
    "heard_source": "heard in the source",
    "heard2_source": "heard in the source by the second recogniser",
}
LABELS = {
    "wer": "WER",
    "wer_source": "WER of the source",
    "wer2": "WER2",
    "wer2_source": "WER2 of the source",
    "secs_target": "SECS to target",
    "secs_source": "SECS to source",
    "secs2_target": "SECS2 to target",
    "secs2_source": "SECS2 to source",
    "dnsmos_ovrl": "DNSMOS overall",
    "dnsmos_sig": "DNSMOS signal",
    "dnsmos_bak": "DNSMOS background",
    "distillmos": "DistillMOS",
    "distillmos_source": "DistillMOS of the source",
    "f0_pcc": "F0 correlation",
    "rtf": "Real-time factor",
}


def write_report(
    folder: Path,
    result: Mapping[str, Any],
    pairs: list[Pair],
    wave_of: Callable[[Pair], Wave],
    progress: Callable[[int, int], None],
) -> Path:
    """Writes `index.html`, `audio/` (FLAC) and `pictures/` (PNG) into the folder; returns the
    page's path.

    Args:
        folder: made if need be; files of an earlier report are replaced.
        result: of `evaluate_pairs`.
        pairs: the same pairs, in the same order.
        wave_of: a pair's conversion, (N,) at 24 kHz.
        progress: told how many pairs are done, and of how many.
    """
    for name in ("audio", "pictures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    overview(result, folder / "overview.png")
    rows = []
    for place, index in enumerate(worst_first(result["pairs"])):
        pair, numbers = pairs[index], result["pairs"][index]
        waves = {
            "source": read(pair.source),
            "conversion": wave_of(pair),
            "reference": read(pair.references[0]),
        }
        names = {
            "source": pair.source.stem,
            "conversion": pair.name,
            "reference": pair.references[0].stem,
        }
        for part, wave in waves.items():
            write_audio(folder / "audio" / f"{names[part]}.flac", wave, RATE)
        spectrograms(waves, folder / "pictures" / f"{pair.name}.png")
        rows.append(row(numbers, names, opened=place < WORST))
        progress(place + 1, len(pairs))
    machine = result["machine"]
    page = string.Template(
        Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    ).substitute(
        title=html.escape(f"Conversions by {result['model'] or 'a model'}"),
        provenance=html.escape(
            f"{len(pairs)} pairs, {result['date']}, commit {result['commit']}, {machine['cpu']},"
            f" {machine['system']}"
        ),
        summary=summary_table(result["summary"], result["unavailable"]),
        worst=min(WORST, len(pairs)),
        headings="<th>pair</th>" + "".join(f"<th>{LABELS[metric]}</th>" for metric in COLUMNS),
        pitch=f"F0 correlation: {METHOD}",
        rows="\n".join(rows),
    )
    write(folder / "index.html", lambda sink: sink.write(page.encode()))
    return folder / "index.html"


def summary_table(summary: Mapping[str, Any], unavailable: Mapping[str, str]) -> str:
    """Mean and 95 % interval of every metric, or why it is missing."""
    lines = ["<tr><th>metric</th><th>mean</th><th>95 % interval</th></tr>"]
    for metric in METRICS:
        spread = html.escape(interval(summary, metric, unavailable))
        lines.append(
            f"<tr><td>{LABELS[metric]}</td><td>{number(summary[metric])}</td><td>{spread}</td></tr>"
        )
    return "".join(lines)


def interval(summary: Mapping[str, Any], metric: str, unavailable: Mapping[str, str]) -> str:
    """The 95 % interval of a metric as text; in its place the reason why there is none, or a
    dash."""
    bounds = summary["ci95"][metric]
    missing = unavailable.get(metric.removesuffix("_source"), "–")
    return f"{bounds[0]:.3f} … {bounds[1]:.3f}" if bounds else missing


def row(numbers: Mapping[str, Any], names: Mapping[str, str], *, opened: bool) -> str:
    """One pair: its numbers, and below them what was said and heard, three players and the
    spectrograms."""
    cells = "".join(
        f'<td data-value="{-9 if numbers[metric] is None else numbers[metric]}">'
        f"{number(numbers[metric])}</td>"
        for metric in COLUMNS
    )
    players = "".join(
        f'<figure><figcaption>{part}</figcaption><audio controls preload="none"'
        f' src="audio/{html.escape(name)}.flac"></audio></figure>'
        for part, name in names.items()
    )
    picture = (
        f'<img loading="lazy" src="pictures/{html.escape(numbers["pair"])}.png" alt="Spectrograms'
        ' of source, conversion and reference">'
    )
    words = f"<div>said: {html.escape(numbers['transcript'].lower())}</div>" + "".join(
        f"<div>{title}: {marked(numbers['transcript'], numbers[key])}</div>"
        for key, title in HEARD.items()
        if numbers[key] is not None
    )
    shown = (
        f"<details{' open' if opened else ''}><summary>words and"
        f" spectrograms</summary>{words}{picture}</details>"
    )
    detail = (
        f'<tr class="detail"><td colspan="{len(COLUMNS) + 1}"><div'
        f' class="players">{players}</div>{shown}</td></tr>'
    )
    return f"<tbody><tr><td>{html.escape(numbers['pair'])}</td>{cells}</tr>{detail}</tbody>"


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def marked(transcript: str, recognised: str) -> str:
    """The normalised words heard as HTML, those that are not the transcript's marked."""
    expected, words = normaliser()(transcript).split(), normaliser()(recognised).split()
    parts = []
    for tag, _, _, start, stop in difflib.SequenceMatcher(
        None, expected, words, autojunk=False
    ).get_opcodes():
        text = html.escape(" ".join(words[start:stop]))
        if text:
            parts.append(text if tag == "equal" else f"<mark>{text}</mark>")
    return " ".join(parts) or "nothing"
