"""One training step: every phase once, with accumulation, clipping, averaging over ranks, and a
guard against NaN."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rtvc.data.seeds import derive
from rtvc.errors import ConfigError, TrainingError
from rtvc.processor import bfloat16_is_faster
from rtvc.train.config import RunConfig, nearest
from rtvc.train.parallel import World
from rtvc.train.schedule import learning_rate
from rtvc.train.stage import Batch, Stage


@dataclass
class Phase:
    """One optimizer of a stage."""

    name: str
    modules: dict[str, list[nn.Parameter]]
    """What it trains, by module: one parameter group each."""
    optimizer: torch.optim.AdamW
    scales: list[float]
    """Of the learning rate, one a parameter group."""
    updates: int
    """Times that it is run in each step."""


class Stepper:
    """Does steps and counts the ones that it had to skip."""

    def __init__(self, stage: Stage, config: RunConfig, world: World) -> None:
        self.stage, self.config, self.world = stage, config, world
        self.skipped, self.bad_in_row = 0, 0
        self.bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and (world.device.type != "cpu" or bfloat16_is_faster())
        )
        for name in config.optimizers:
            if name not in stage.phases:
                raise ConfigError(
                    f"[optimizers.{name}] is no phase of this stage;"
                    f" {nearest(name, list(stage.phases))}"
                )
        self.phases = [self._phase(name, modules) for name, modules in stage.phases.items()]
        self.trained = {name for modules in stage.phases.values() for name in modules}

    def _phase(self, name: str, modules: Sequence[str]) -> Phase:
        settings = self.config.optimizer_of(name)
        for module in settings.lr_scale:
            if module not in self.stage.modules:
                raise ConfigError(
                    f"lr_scale names the module {module!r};"
                    f" {nearest(module, list(self.stage.modules))}"
                )
        trained = {
            module: [p for p in self.stage.modules[module].parameters() if p.requires_grad]
            for module in modules
        }
        trained = {module: parameters for module, parameters in trained.items() if parameters}
        if not trained:
            raise ConfigError(f"the phase {name!r} has no weights to train")
        groups = [{"params": parameters} for parameters in trained.values()]
        optimizer = torch.optim.AdamW(
            groups,
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
        )
        scales = [settings.lr_scale.get(module, 1.0) for module in trained]
        return Phase(name, trained, optimizer, scales, settings.updates)

    def advance(self, batches: Sequence[Batch], step: int) -> tuple[dict[str, Tensor], bool]:
        """Step `step` (counted from 0) on `accumulate` batches; returns the unweighted losses and
        whether every phase was fine.

        A phase whose loss or gradient is not finite leaves weights and buffers as they were and
        ends the step.

        Raises:
            TrainingError: too many steps in a row were not fine.
        """
        seed = derive(self.config.seed, "step", step, self.world.rank)
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        logged: dict[str, Tensor] = {}
        fine = True
        for phase in (each for each in self.phases for _ in range(each.updates)):
            frozen = self.stage.frozen(phase.name, step)
            for name, module in self.stage.modules.items():
                module.train(name in self.trained and name not in frozen)
            buffers = [
                (b, b.clone()) for module in self.stage.modules.values() for b in module.buffers()
            ]
            values = self._run(
                phase,
                batches,
                step,
                [p for name, part in phase.modules.items() if name not in frozen for p in part],
            )
            if values is None:
                fine = False
                for buffer, kept in buffers:  # running statistics that the bad batch has touched
                    buffer.copy_(kept)
                break  # the next phase may build on what this one computed
            logged.update(values)
        self.world.share_buffers(self.stage.modules.values())
        self.bad_in_row = 0 if fine else self.bad_in_row + 1
        self.skipped += not fine
        if self.bad_in_row > self.config.bad_steps:
            raise TrainingError(
                f"{self.bad_in_row} steps in a row, up to step {step}, had a loss or gradient that"
                " is not finite, and were skipped: lower optimizer.lr, use precision = 'float32',"
                " or look at the data; the last checkpoint is whole"
            )
        return logged, fine

    def _run(
        self, phase: Phase, batches: Sequence[Batch], step: int, parameters: list[nn.Parameter]
    ) -> dict[str, Tensor] | None:
        """One phase; its losses, or None when something was not finite."""
        phase.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bfloat16):
                losses = self.stage.losses(phase.name, batch, step)
            if not losses:
                return {}
            total = self._total(losses) / len(batches)
            if total.requires_grad and parameters:
                torch.autograd.backward(total, inputs=parameters)
            for name, value in losses.items():
                part = value.detach().float() / len(batches)
                sums[name] = sums[name] + part if name in sums else part
            whole = f"loss/{phase.name}"
            sums[whole] = sums[whole] + total.detach() if whole in sums else total.detach()
        self.world.average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip or float("inf"))
        finite = bool(torch.isfinite(norm + sums[f"loss/{phase.name}"]).item())
        if self.world.any(not finite):
            phase.optimizer.zero_grad(set_to_none=True)
            return None
        rate = learning_rate(self.config.optimizer_of(phase.name), step, self.config.steps)
        for group, scale in zip(phase.optimizer.param_groups, phase.scales, strict=True):
            group["lr"] = rate * scale
        phase.optimizer.step()
        phase.optimizer.zero_grad(set_to_none=True)
        return sums | {f"norm/{phase.name}": norm.detach()}

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum. Every loss needs a factor, so that none is forgotten."""
        weights: dict[str, float] = dict(getattr(self.config, "weights", ()))
        total: Tensor | None = None
        for name, value in losses.items():
            if name.startswith("metric/"):
                continue
            if name not in weights:
                raise ConfigError(
                    f"the loss {name!r} has no factor in [weights]; {nearest(name, list(weights))}"
                )
            if weights[name]:
                part = weights[name] * value.float()
                total = part if total is None else total + part
        if total is None:
            raise ConfigError(
                f"every factor in [weights] of {', '.join(losses)} is 0: there is nothing to train"
            )
        return total

    def rates(self) -> dict[str, float]:
        """The learning rates last used, for the log."""
        return {
            f"lr/{phase.name}": float(phase.optimizer.param_groups[0]["lr"])
            for phase in self.phases
        }
