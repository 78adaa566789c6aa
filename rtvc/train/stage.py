"""What a training stage gives to the loop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from rtvc.train.config import RunConfig

Batch = dict[str, Any]
"""Its tensors are moved to the device by the loop; other values pass through."""


@dataclass(frozen=True)
class Samples:
    """What TensorBoard shows of a step."""

    audio: dict[str, Tensor] = field(default_factory=dict)
    """Name -> (N,) waveform, 24 kHz."""
    mels: dict[str, Tensor] = field(default_factory=dict)
    """Name -> (bands, T)."""


class Stage(Protocol):
    """A model, its losses and its data. The loop does the rest: devices, optimizers, averages,
    checkpoints, logs.

    Subclass it and set the attributes in `__init__`, which takes the stage's configuration alone.

    Attributes:
        config_type: the stage's configuration, a subclass of RunConfig with a `weights` section of
            one factor per loss.
        modules: everything that holds weights or buffers, by the name under which checkpoints keep
            it.
        phases: name -> names of the modules that it trains, in the order in which a step runs them.
            A GAN has two. Modules that no phase names stay as they are, in evaluation mode.
        averaged: names of the modules that are exported, with averaged weights where a phase trains
            them.
    """

    config_type: ClassVar[type[RunConfig]]
    modules: dict[str, nn.Module]
    phases: dict[str, Sequence[str]]
    averaged: Sequence[str]

    def batch(self, index: int) -> Batch:
        """The batch with this number, on the CPU: a function of (seed, index) alone, called from
        several threads.

        Draw from `rtvc.data.seeds.generator(seed, index)`, never from the global generators.
        `index` counts batches over all ranks and accumulation steps.
        """
        ...

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        """Scalar losses of one phase, unweighted; the loop multiplies each by
        `config.weights.<name>` and adds them up.

        Names that begin with `metric/` are only logged; what only some frames have is a share, (2,)
        (`rtvc.train.losses.shares`). An empty dict skips the phase in this step.
        Called with the global generators seeded from (seed, step, rank). Which names come may
        depend on the phase and the step, not on the data: all ranks must agree. Only the phase's
        own modules receive gradients, so the graph may run through the others; what a later phase
        can reuse may be kept in the batch, which lives for one step.
        """
        ...

    def frozen(self, phase: str, step: int) -> Collection[str]:
        """Modules of a phase that it leaves alone in this step; gradients still flow through them.
        They are in evaluation mode."""
        return ()

    def begin(self, initialised: Collection[str]) -> None:
        """Called once, when a run starts afresh and the weights of `[[init]]` are in; these are the
        modules that got some."""

    def sample(self, step: int) -> Samples:
        """Audio and pictures; called without gradients, with averaged weights, in evaluation
        mode."""
        return Samples()

    def validate(self, step: int) -> dict[str, float]:
        """Held-out measurements; called like `sample`, on the first rank only."""
        return {}

    def device(self) -> torch.device:
        """Where the modules are."""
        tensors = (
            t for module in self.modules.values() for t in (*module.parameters(), *module.buffers())
        )
        return next(tensors).device

    def remarks(self) -> list[str]:
        """Lines for RUN/remarks.txt that came up since the last call, such as recordings that
        cannot be read."""
        return []
