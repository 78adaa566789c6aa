"""What a run tells: a progress bar with the time left, RUN/metrics.jsonl, and TensorBoard under
RUN/tensorboard."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from rtvc.errors import LONGEST, DependencyError
from rtvc.files import parsed
from rtvc.printable import printable
from rtvc.train.parallel import World
from rtvc.train.stage import Samples

SAMPLE_RATE = 24_000


METRICS = "metrics.jsonl"
"""What a run measured, a line of JSON a report, in its folder."""


def measurements(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, each with its `step`; half a line that a kill cut off is left
    out, and a run that has not told anything yet has none.

    Raises:
        OSError: they cannot be read.
        UnicodeDecodeError: they are no text.
    """
    path, lines = run / METRICS, list[dict[str, Any]]()
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = parsed(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


class Monitor:
    """The reports of one process; silent when `active` is false (other ranks than the first)."""

    def __init__(
        self,
        run: Path,
        start: int,
        steps: int,
        *,
        active: bool = True,
        tensorboard: bool = True,
        console: Console | None = None,
    ) -> None:
        self.run, self.active, self.console = run, active, console or Console(stderr=True)
        self.writer: Any = None
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self.progress = Progress(
            *columns, console=self.console, disable=not active or not self.console.is_terminal
        )
        self.task = self.progress.add_task("training", total=steps, completed=start, text="")
        if not active:
            return
        run.mkdir(parents=True, exist_ok=True)
        self._forget_after(start)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise DependencyError(
                    "log.tensorboard needs TensorBoard: pip install 'rtvc-engine[train]', or --set"
                    " log.tensorboard=false"
                ) from error
            self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)

    def _forget_after(self, start: int) -> None:
        """Drops the lines that a killed run wrote after its last checkpoint: their steps will be
        written again."""
        path = self.run / METRICS
        kept = [line for line in measurements(self.run) if line["step"] <= start]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def __enter__(self) -> "Monitor":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()
        if self.writer:
            self.writer.close()

    def step(self, step: int) -> None:
        """Moves the bar."""
        self.progress.update(self.task, completed=step)

    def say(self, text: str) -> None:
        """A line for the person at the terminal."""
        if self.active:
            self.console.print(printable(text, LONGEST, keep="\n"), highlight=False, markup=False)

    def remark(self, lines: Sequence[str]) -> None:
        """Keeps lines in RUN/remarks.txt and shows them."""
        if self.active and lines:
            with open(self.run / "remarks.txt", "a") as file:
                file.writelines(line + "\n" for line in lines)
            for line in lines:
                self.say(line)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, everywhere."""
        if not self.active:
            return
        with open(self.run / METRICS, "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        shown = "  ".join(
            f"{name} {value:.4g}"
            for name, value in values.items()
            if "/" not in name or name.startswith("loss/")
        )
        self.progress.update(self.task, text=shown)
        if not self.console.is_terminal:
            self.say(f"step {step}  {shown}")

    def samples(self, step: int, samples: Samples) -> None:
        """Audio and pictures in TensorBoard."""
        if not self.writer:
            return
        for name, audio in samples.audio.items():
            self.writer.add_audio(
                name, audio.detach().float().cpu().clamp(-1, 1), step, SAMPLE_RATE
            )
        for name, mel in samples.mels.items():
            self.writer.add_image(name, picture(mel.detach().float().cpu()), step)


def picture(mel: Tensor) -> Tensor:
    """mel (bands, T) -> (3, bands, T) colours in 0..1, low bands at the bottom."""
    low, high = mel.min(), mel.max()
    level = ((mel - low) / (high - low).clamp_min(1e-6)).flip(0)
    try:
        from matplotlib import colormaps
    except ImportError:
        return level.expand(3, -1, -1)
    return torch.from_numpy(colormaps["magma"](level.numpy())[..., :3]).permute(2, 0, 1).float()


class Means:
    """Running means of named scalars, and of shares (`rtvc.train.losses.shares`), kept on the
    device until they are asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.last: dict[str, float] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """One step's values."""
        for name, value in values.items():
            self.sums[name] = value.float() + self.sums.get(name, 0.0)
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, world: World) -> dict[str, float]:
        """The means over the steps since the last call, and over the ranks; a share of nothing is
        left out."""
        if self.sums:
            names = sorted(self.sums)
            pairs = [_pair(self.sums[name], self.counts[name]) for name in names]
            totals, counts = world.mean(torch.stack(pairs)).unbind(1)
            means = zip(names, (totals / counts).tolist(), counts.tolist(), strict=True)
            self.last = {name: mean for name, mean, count in means if count}
        self.sums, self.counts = {}, {}
        return self.last


def _pair(total: Tensor, steps: int) -> Tensor:
    """The sum of a scalar over so many steps, or of a share, as a total and a count, (2,)."""
    return total if total.ndim else torch.stack([total, torch.full_like(total, steps)])
