"""Learning rates as functions of the step number alone, so that resuming needs no scheduler
state."""

import math

from rtvc.train.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of one step (counted from 0) of a run of `steps`."""
    if config.schedule == "onecycle":
        return config.lr * _one_cycle(
            step / max(1, steps - 1), config.pct_start, 1 / config.div_factor, config.final
        )
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup) / max(1, steps - 1 - config.warmup)
    return config.lr * _cosine(1.0, config.final, share)


def _one_cycle(share: float, rise: float, first: float, last: float) -> float:
    """Smith and Topin 2018: a cosine rise to 1 in the first `rise` of the run, a cosine fall to
    `last` in the rest."""
    if share < rise:
        return _cosine(first, 1.0, share / rise)
    return _cosine(1.0, last, (share - rise) / (1 - rise))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
