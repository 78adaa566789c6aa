"""A two-phase toy stage for the tests of the loop; also a program, so that it can be killed and run
under torchrun."""

import sys
import time
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from rtvc.data.seeds import generator
from rtvc.train.config import RunConfig, Section, load_config
from rtvc.train.loop import Trainer
from rtvc.train.stage import Batch, Samples, Stage


class Weights(Section):
    fit: float = 1.0
    fool: float = 0.1
    tell: float = 1.0


class ToyConfig(RunConfig):
    weights: Weights = Weights()
    poison: tuple[int, ...] = ()
    """Batches with a NaN."""
    slow: float = 0.0
    rows: int = 8
    plain: bool = False
    """Without dropout and batch statistics."""


class Toy(Stage):
    """A generator with dropout and batch norm learns a rotation; a discriminator looks at it."""

    config_type: ClassVar[type[RunConfig]] = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        rough = (
            nn.Identity() if config.plain else nn.Sequential(nn.BatchNorm1d(32), nn.Dropout(0.1))
        )
        self.modules = {
            "net": nn.Sequential(nn.Linear(4, 32), rough, nn.Tanh(), nn.Linear(32, 4)),
            "critic": nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)),
        }
        self.phases = {"discriminator": ("critic",), "generator": ("net",)}
        self.averaged = ("net",)

    def batch(self, index: int) -> Batch:
        x = torch.randn(self.config.rows, 4, generator=generator(self.config.seed, "toy", index))
        if index in self.config.poison:
            x[0, 0] = float("nan")
        time.sleep(self.config.slow)
        return {"x": x, "y": x.roll(1, 1)}

    def losses(self, phase: str, batch: Batch, step: int) -> dict[str, Tensor]:
        net, critic = self.modules["net"], self.modules["critic"]
        made = net(batch["x"])
        if phase == "discriminator":
            return {
                "tell": (
                    (critic(batch["y"]) - 1).square().mean() + critic(made.detach()).square().mean()
                )
            }
        return {
            "fit": (made - batch["y"]).square().mean(),
            "fool": (critic(made) - 1).square().mean(),
            "metric/size": made.abs().mean(),
        }

    def sample(self, step: int) -> Samples:
        return Samples({"tone": torch.sin(torch.arange(2400) / 10)}, {"mel": torch.rand(80, 20)})

    def validate(self, step: int) -> dict[str, float]:
        batch = self.batch(10**6)
        return {"fit": float((self.modules["net"](batch["x"]) - batch["y"]).square().mean())}


def run_toy(config_path: str, run: str, *overrides: str) -> None:
    """Trains the toy as a program would."""
    config = load_config(ToyConfig, Path(config_path), overrides)
    torch.manual_seed(config.seed)
    trainer = Trainer(Toy(config), config, Path(run))
    trainer.fit()
    trainer.world.close()


if __name__ == "__main__":
    run_toy(*sys.argv[1:])
