"""Learning curves: `python -m rtvc.benchmarks.pages.learning TITLE=RUN …` draws what runs measured
on held-out speakers while they learned.

Steps are below each panel, core-hours above it. Runs of the same title followed one another: the
later goes on where the earlier ended.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from rtvc.benchmarks import report
from rtvc.errors import ConfigError
from rtvc.evaluate.judges.optional import need
from rtvc.evaluate.picture import ACCENT, INK, PALE
from rtvc.files import check_target, write
from rtvc.train.monitor import METRICS, measurements

COLUMNS, WIDE, HIGH = 2, 4.4, 2.9
"""Panels a row, and their size in inches."""
PREFIX, SECONDS, FRAME_MS = "valid/", "run/seconds", 12.5
PICTURE = Path("docs/learning.svg")
NAMES = {
    "units": "units, cross entropy",
    "phonemes": "phonemes, cross entropy",
    "units_right": "units, share of right ones",
    "phonemes_right": "phonemes, share of right ones",
    "rank": "effective rank of the content",
    "speaker_nearest": "how often the content finds its speaker",
}
"""Of the panels whose metric's own name says too little."""

Numbers = npt.NDArray[np.float64]
Line = Mapping[str, float]
"""One line of a run's metrics: `step`, and what was measured then."""


class Point(NamedTuple):
    """One measurement."""

    step: int
    value: float


class Curves(NamedTuple):
    """What a stage measured, over all runs of its title."""

    title: str
    clock: list[tuple[int, float]]
    """Steps, and core-hours at them; begins at (0, 0), both rise."""
    metrics: dict[str, list[Point]]

    @property
    def last(self) -> tuple[int, float]:
        """Steps and core-hours at the end."""
        return self.clock[-1]


def read_run(run: Path) -> list[Line]:
    """The lines of RUN/metrics.jsonl in the order of their steps; one that a kill cut off is left
    out.

    Raises:
        ConfigError: the run has none.
    """
    path = run / METRICS
    try:
        path.stat()  # a run that never told anything is no run to draw
        lines = measurements(run)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a run with its metrics, {path} cannot be read ({error}): name the folder"
            " given to `rtvc train --run`"
        ) from error
    if not any(name.startswith(PREFIX) for line in lines for name in line):
        raise ConfigError(
            f"expected held-out measurements in {path}, it has none: set log.validate_every and"
            " data.held_out"
        )
    return sorted(lines, key=lambda line: line["step"])


def curves(title: str, runs: Sequence[Sequence[Line]], cores: float = 1.0) -> Curves:
    """The measurements of runs that followed one another.

    Args:
        title: of the stage.
        runs: what `read_run` gives of each.
        cores: that a run used.

    Raises:
        ConfigError: a run does not say how long it took.
    """
    clock, metrics = [(0, 0.0)], dict[str, list[Point]]()
    for lines in runs:
        begun, spent = clock[-1]
        for line in lines:
            step = begun + int(line["step"])
            for name, value in line.items():
                if name.startswith(PREFIX) and math.isfinite(value):
                    metrics.setdefault(name.removeprefix(PREFIX), []).append(Point(step, value))
            if SECONDS in line:
                hours = spent + line[SECONDS] * cores / 3600
                if step > clock[-1][0] and hours > clock[-1][1]:
                    clock.append((step, hours))
        if clock[-1][0] == begun:
            raise ConfigError(
                f"expected {SECONDS} in the metrics of {title}, there is none: the run ended before"
                " its first report"
            )
    # Runs of earlier versions wrote 0 for what had no labels.
    return Curves(
        title,
        clock,
        {name: points for name, points in metrics.items() if any(point.value for point in points)},
    )


def panels(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Which metrics share a panel: those of the dial's settings, NAME_0, NAME_1, … Panel -> metric
    -> its legend, empty where a panel has one line."""
    families: dict[str, dict[str, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.+)_(\d+)", name)
        if match is None:
            families[name] = {name: ""}
            continue
        family, frames = match.group(1), int(match.group(2))
        families.setdefault(family, {})[name] = f"{frames * FRAME_MS:g} ms ahead"
    return families


def draw(stages: Sequence[Curves], path: Path, note: str) -> None:
    """Every stage's measurements as one picture (.svg, .png).

    Raises:
        ConfigError: another suffix.
    """
    form = report.picture_format(path)
    rows = [math.ceil(len(panels(list(stage.metrics))) / COLUMNS) for stage in stages]
    matplotlib = need("matplotlib")
    size = (COLUMNS * WIDE, sum(rows) * HIGH + 0.5 * len(rows) + 0.3)
    # The same curves are the same file: names in an SVG would be random, and its date today's.
    with matplotlib.rc_context({"svg.hashsalt": "rtvc"}):
        figure = need("matplotlib.figure").Figure(figsize=size, layout="constrained")
        figure.suptitle(note, fontsize=8, color=INK)
        parts = figure.subfigures(len(stages), 1, height_ratios=rows, squeeze=False)[:, 0]
        for part, stage, count in zip(parts, stages, rows, strict=True):
            steps, hours = stage.last
            part.suptitle(
                f"{stage.title}: {steps:,} steps, {hours:.1f} core-hours", color=INK, fontsize=11
            )
            axes = part.subplots(count, COLUMNS, squeeze=False).ravel()
            families = panels(list(stage.metrics))
            for axis, (family, members) in zip(axes, families.items(), strict=False):
                _panel(axis, stage, family, members)
            for axis in axes[len(families) :]:
                axis.set_visible(False)
        metadata = {"Date": None} if form == "svg" else None
        write(path, lambda sink: figure.savefig(sink, format=form, dpi=110, metadata=metadata))


def _panel(axis: Any, stage: Curves, family: str, members: Mapping[str, str]) -> None:
    """One metric, or one at every setting of the dial."""
    colours = need("matplotlib").colormaps["viridis"](np.linspace(0, 0.8, len(members)))
    ends = []
    for (name, legend), colour in zip(members.items(), colours, strict=True):
        points = stage.metrics[name]
        axis.plot(
            [point.step for point in points],
            [point.value for point in points],
            color=colour if legend else ACCENT,
            marker="o" if len(points) < 40 else "",
            markersize=2.5,
            linewidth=1.3,
            label=f"{legend}: {points[-1].value:.3g}",
        )
        ends.append(points[-1].value)
    if len(members) > 1:
        handles, labels = axis.get_legend_handles_labels()
        places = sorted(range(len(ends)), key=lambda k: -ends[k])  # as the lines end
        axis.legend(
            [handles[k] for k in places],
            [labels[k] for k in places],
            fontsize=7,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1, 1),
        )
    told = "" if len(members) > 1 else f": {ends[0]:.3g}"
    title = NAMES.get(family, family.replace("_", " "))
    axis.set_title(f"{title}{told}", fontsize=9, color=INK, loc="left")
    axis.set_xlim(0, stage.last[0])
    axis.set_xlabel("steps", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(color=PALE, alpha=0.3, linewidth=0.5)
    steps, hours = _beyond(stage.clock)

    def spent(x: npt.ArrayLike) -> Numbers:
        return np.asarray(np.interp(np.asarray(x, float), steps, hours))

    def reached(x: npt.ArrayLike) -> Numbers:
        return np.asarray(np.interp(np.asarray(x, float), hours, steps))

    above = axis.secondary_xaxis("top", functions=(spent, reached))
    above.set_xlabel("core-hours", fontsize=8)
    above.tick_params(labelsize=7)


def _beyond(clock: Sequence[tuple[int, float]]) -> tuple[Numbers, Numbers]:
    """Steps and core-hours of a clock, one more of each on either side at its mean speed: an axis
    asks for values a little outside."""
    last = np.array(clock[-1], float)
    steps, hours = np.array([-last, *np.array(clock, float), 2 * last]).T
    return steps, hours


def stages_of(runs: Sequence[str], cores: float) -> list[Curves]:
    """The stages that `TITLE=RUN` arguments name, in the order in which they first appear; a RUN
    alone is titled by its folder."""
    named: dict[str, list[Path]] = {}
    for argument in runs:
        title, equals, run = argument.partition("=")
        folder = Path(run if equals else argument)
        named.setdefault(title if equals else folder.name, []).append(folder)
    return [
        curves(title, [read_run(folder) for folder in folders], cores)
        for title, folders in named.items()
    ]


def kept(stage: Curves, requested: Sequence[str]) -> Curves:
    """A stage with those of its metrics, or of their panels, that are requested."""
    families = panels(list(stage.metrics))
    names = {name for family in requested for name in families.get(family, {family: ""})}
    return stage._replace(
        metrics={name: points for name, points in stage.metrics.items() if name in names}
    )


def main(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="TITLE=RUN of each run, in order; runs of one title follow one another",
            metavar="TITLE=RUN",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="picture to draw (.svg, .png)")] = (
        PICTURE
    ),
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="only these; repeatable; default: all")
    ] = None,
    cores: Annotated[float, typer.Option(help="that each run used", min=0.01)] = 1.0,
) -> None:
    """Draw the learning curves of runs."""
    from rtvc.train.export import commit

    report.picture_format(check_target(out, folders=True))
    stages = stages_of(runs, cores)
    if metrics:
        stages = [kept(stage, metrics) for stage in stages]
    if empty := [stage.title for stage in stages if not stage.metrics]:
        raise ConfigError(
            f"expected held-out measurements of {', '.join(empty)}, there is none to draw: leave"
            " --metric out"
        )
    draw(
        stages,
        out,
        f"Learning curves, on held-out speakers; {time.strftime('%Y-%m-%d')}, commit {commit()}",
    )
    typer.echo(
        f"{out} is written: "
        + ", ".join(f"{stage.title} to step {stage.last[0]:,}" for stage in stages)
    )


if __name__ == "__main__":
    typer.run(main)
