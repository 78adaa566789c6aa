"""The training loop of every stage."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

from rtvc.errors import RtvcError, TrainingError
from rtvc.kernels.toolchain.dispatch import Implementation
from rtvc.layers.dispatch import set_implementation
from rtvc.printable import first_problem, printable
from rtvc.train.config import RunConfig
from rtvc.train.ema import Average
from rtvc.train.monitor import Means, Monitor
from rtvc.train.parallel import World, join
from rtvc.train.prefetch import Feed, moved
from rtvc.train.stage import Stage
from rtvc.train.state import Checkpoints, Progress, exported, initialise, save_weights
from rtvc.train.step import Stepper

IMPLEMENTATIONS: dict[bool | str, Implementation] = {
    True: "fused",
    False: "reference",
    "auto": "auto",
}
"""How layers run for each value of the setting `fused`."""


@dataclass
class Outcome:
    """How a run, or this part of it, ended."""

    step: int
    """Steps done so far, over all parts of the run."""
    reason: str
    """`finished`, `max_steps`, `max_minutes` or `interrupted`."""
    skipped: int
    """Steps that were skipped because something was not finite, over all parts."""
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    """Means of the last report."""


class Trainer:
    """Runs a stage from its last checkpoint to the end, or until it is told to stop."""

    def __init__(
        self,
        stage: Stage,
        config: RunConfig,
        run: Path,
        *,
        world: World | None = None,
        console: Console | None = None,
    ) -> None:
        self.stage, self.config, self.run, self.console = stage, config, run, console
        self.world = world or join(config.device)
        self.step, self.seconds = 0, 0.0
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
        for module in stage.modules.values():
            module.to(self.world.device)
            set_implementation(module, IMPLEMENTATIONS[config.fused])
        self.stepper = Stepper(stage, config, self.world)
        self.average = Average(
            {name: stage.modules[name] for name in stage.averaged if name in self.stepper.trained},
            config.ema,
        )
        self.checkpoints = Checkpoints(run, config.checkpoint.keep)
        self.stop: str | None = None

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "stage": type(self.stage).__name__,
            "config": self.config.model_dump_json(),
            "step": self.step,
            "skipped": self.stepper.skipped,
            "bad_in_row": self.stepper.bad_in_row,
            "seconds": self.seconds,
            "world": self.world.size,
            "modules": {name: module.state_dict() for name, module in self.stage.modules.items()},
            "optimizers": {
                phase.name: phase.optimizer.state_dict() for phase in self.stepper.phases
            },
            "average": self.average.shadow,
            "averaged": list(self.stage.averaged),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Takes a checkpoint's state; returns what differs from the configuration it was made with.

        Raises:
            TrainingError: it belongs to another stage or to other models.
        """
        again = "name another --run, or --fresh"
        try:
            saved = Progress.model_validate(state)
            old = json.loads(saved.config)
        except (ValidationError, ValueError, RecursionError) as error:
            problem = (
                first_problem(error)
                if isinstance(error, ValidationError)
                else "its configuration is no JSON"
            )
            raise TrainingError(
                f"the checkpoint in {self.run} is not that of a run ({problem}): {again}"
            ) from error
        if saved.stage != type(self.stage).__name__:
            raise TrainingError(
                f"{self.run} holds a run of {printable(saved.stage)}, not of"
                f" {type(self.stage).__name__}: {again}"
            )
        try:
            for name, module in self.stage.modules.items():
                module.load_state_dict(state["modules"][name])
            for phase in self.stepper.phases:
                phase.optimizer.load_state_dict(state["optimizers"][phase.name])
            self.average.load(state["average"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise TrainingError(
                f"the checkpoint in {self.run} is of other models than the configuration's"
                f" ({error}): {again}"
            ) from error
        self.step, self.seconds = saved.step, saved.seconds
        self.stepper.skipped, self.stepper.bad_in_row = saved.skipped, saved.bad_in_row
        new = json.loads(self.config.model_dump_json())
        old = old if isinstance(old, dict) else {}
        changes = [
            f"{key} = {new.get(key)!r} (was {old.get(key)!r})"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
        if saved.world != self.world.size:
            changes.append(f"{self.world.size} processes (were {saved.world})")
        return [printable(change, 400) for change in changes]

    def begin(self, resume: bool) -> list[str]:
        """Initial weights, or the last checkpoint's; returns lines for the log."""
        checkpoint = self.checkpoints.latest() if resume else None
        if checkpoint is not None:
            _, state, lines = checkpoint
            changes = self.restore(state)
            return [
                *lines,
                f"resuming at step {self.step}",
                *[f"changed since: {change}" for change in changes],
            ]
        if not resume:
            self._set_aside()
        initialised: set[str] = set()
        for source in self.config.init:
            initialised.update(
                initialise(self.stage.modules, source.path, source.modules, grow=source.grow)
            )
        self.stage.begin(initialised)
        self.world.share(self.stage.modules.values())
        self.average = Average(self.average.modules, self.config.ema)
        return []

    def _set_aside(self) -> None:
        """Renames an earlier run of the same directory, rather than deleting hours of work."""
        if self.world.first and self.checkpoints.folder.exists():
            self.run.rename(
                next(
                    path
                    for n in count(1)
                    if not (path := self.run.with_name(f"{self.run.name}.old{n}")).exists()
                )
            )
        self.world.any(False)  # nobody writes before the first rank is done

    def fit(
        self, *, resume: bool = True, max_steps: int | None = None, max_minutes: float | None = None
    ) -> Outcome:
        """Trains until `config.steps`, or for so many more steps or minutes; ends with a checkpoint
        and exported weights.

        Raises:
            TrainingError: too many steps in a row were not finite, or the last checkpoint cannot be
                written.
        """
        lines, config, world = self.begin(resume), self.config, self.world
        began = saved_at = time.monotonic()
        before, saved_step, stop = self.seconds, self.step, None
        last = config.steps if max_steps is None else min(config.steps, self.step + max_steps)
        indices = (i * world.size + world.rank for i in count(self.step * config.accumulate))
        feed = Feed(self.stage.batch, indices, config.workers)
        monitor = Monitor(
            self.run,
            self.step,
            config.steps,
            active=world.first,
            tensorboard=config.log.tensorboard,
            console=self.console,
        )
        means = Means()
        try:
            with monitor, self._signals():
                for line in lines:
                    monitor.say(line)
                while self.step < last and not stop:
                    batches = [moved(feed.next(), world.device) for _ in range(config.accumulate)]
                    values, fine = self.stepper.advance(batches, self.step)
                    if fine:
                        self.average.update(self.step)
                    means.add(values)
                    self.step += 1
                    now = time.monotonic()
                    self.seconds = before + now - began
                    monitor.step(self.step)
                    if self.step % config.log.every == 0 or self.step == last:
                        counts = {
                            "run/skipped": float(self.stepper.skipped),
                            "run/seconds": self.seconds,
                        }
                        monitor.remark(self.stage.remarks())
                        monitor.scalars(
                            self.step, means.take(world) | self.stepper.rates() | counts
                        )
                    self._look(monitor)
                    asked = self.stop or (
                        "max_minutes"
                        if max_minutes is not None and now - began > 60 * max_minutes
                        else None
                    )
                    if world.any(asked is not None):  # all ranks leave after the same step
                        stop = asked or "interrupted"
                    elif self.step < last and (
                        self.step % config.checkpoint.every == 0
                        or now - saved_at > 60 * config.checkpoint.minutes
                    ):
                        self._save(monitor, final=False)
                        saved_at, saved_step = time.monotonic(), self.step
                if saved_step != self.step or not self.checkpoints.steps():
                    self._save(monitor, final=True)
        finally:
            feed.close()
        if world.first:
            save_weights(self.run / "weights.safetensors", exported(self.state()), self.note())
        reason = stop or ("finished" if self.step >= config.steps else "max_steps")
        return Outcome(self.step, reason, self.stepper.skipped, self.seconds, means.last)

    def _look(self, monitor: Monitor) -> None:
        """Samples and held-out measurements, with averaged weights, on the first rank."""
        log, step = self.config.log, self.step
        sample = (
            bool(log.sample_every) and step % log.sample_every == 0 and monitor.writer is not None
        )
        validate = bool(log.validate_every) and step % log.validate_every == 0
        if not self.world.first or not (sample or validate):
            return
        for module in self.stage.modules.values():
            module.eval()
        with torch.no_grad(), self.average.applied():
            try:
                if validate and (values := self.stage.validate(step)):
                    monitor.scalars(
                        step, {f"valid/{name}": value for name, value in values.items()}
                    )
                if sample:
                    monitor.samples(step, self.stage.sample(step))
            except (RtvcError, OSError) as error:  # a picture is not worth a run
                monitor.say(f"step {step}: no samples: {error}")

    def _save(self, monitor: Monitor, *, final: bool) -> None:
        if not self.world.first:
            return
        try:
            self.checkpoints.save(self.step, self.state(), {"stage": type(self.stage).__name__})
        except OSError as error:
            if final:
                raise TrainingError(
                    f"the last checkpoint cannot be written ({error}): free some space and run the"
                    " command again"
                ) from error
            monitor.say(
                f"step {self.step}: checkpoint not written ({error}); the earlier ones are whole,"
                " the run goes on"
            )

    def note(self) -> dict[str, str]:
        """The metadata of the exported weights."""
        return {
            "stage": type(self.stage).__name__,
            "step": str(self.step),
            "config": self.config.model_dump_json(),
        }

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the current step, with a checkpoint."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.stop = "interrupted"

        old: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                old[number] = signal.signal(number, ask)
        except ValueError:
            pass  # not the main thread: signals are somebody else's
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
