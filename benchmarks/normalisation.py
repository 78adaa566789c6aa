"""Causal stand-ins for AdaIN's statistics, compared on the same data and steps: `python -m
rtvc.benchmarks.normalisation --steps N`.

The decoder of the streaming model, smaller, is trained once for each with the same seed, batches
and schedule, from labelled content, and measured by the spectral distance on held-out utterances.
The table goes to docs/normalisation.md.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from rtvc.files import check_target, write
from rtvc.layers.norm import Statistics
from rtvc.train.monitor import measurements

MEANING = {
    "frame": "mean and deviation over the channels of each frame",
    "film": "nothing is taken out; the style scales and shifts",
    "predicted": "a mean and deviation a channel that the style itself supplies",
}
SMALL = {
    "decoder_hidden": 256,
    "decoder_dilations": (1, 2, 4, 1),
    "acoustic_hidden": 128,
    "prosodic_hidden": 64,
}
"""Differences from the shipped model."""


@dataclass(frozen=True)
class Result:
    """What one stand-in came to."""

    statistics: str
    steps: int
    stft: float
    """Spectral distance on held-out utterances."""
    train: float
    """The same over the last tenth of training."""
    seconds: float
    """Of training."""
    parameters: int
    """Of the decoder and of the map from style to its scales and shifts."""
    skipped: int
    """Steps that were not finite."""


def settings(
    labelled: Sequence[Path], statistics: str, steps: int, seed: int, small: dict[str, Any]
) -> dict[str, Any]:
    """The configuration of one run of stage `stream`: everything but `statistics` is the same in
    all of them."""
    return {
        "seed": seed,
        "steps": steps,
        "clip": 1.0,
        "ema": 0.99,
        "precision": "bfloat16",
        "labels_every": 1,
        "data": {
            "labelled": list(labelled),
            "batch": 8,
            "frames": 112,
            "warp": 0.16,
            "warp_share": 0.6,
            "held_out": 24,
        },
        "model": {**small, "statistics": statistics},
        "weights": {"embedding": 0.0, "consistency": 0.0},
        "optimizer": {
            "lr": 1e-3,
            "betas": (0.8, 0.99),
            "weight_decay": 0.01,
            "warmup": min(100, steps // 4),
        },
        "log": {
            "every": max(1, steps // 10),
            "sample_every": 0,
            "validate_every": 0,
            "tensorboard": False,
        },
        "checkpoint": {"every": max(1, steps // 4)},
    }


def train(
    statistics: str,
    labelled: Sequence[Path],
    steps: int,
    run: Path,
    seed: int = 0,
    small: dict[str, Any] | None = None,
) -> Result:
    """Trains with one stand-in and measures it; a stopped run goes on."""
    import torch
    from rich.console import Console

    from rtvc.train.config import validated
    from rtvc.train.loop import Trainer
    from rtvc.train.streaming.stream import Stream
    from rtvc.train.streaming.stream_config import StreamConfig

    config = validated(
        StreamConfig,
        settings(labelled, statistics, steps, seed, SMALL if small is None else small),
        "the comparison",
    )
    torch.manual_seed(seed)
    stage = Stream(config)
    trainer = Trainer(stage, config, run, console=Console(stderr=True))
    outcome = trainer.fit()
    for module in stage.modules.values():
        module.eval()
    with torch.no_grad(), trainer.average.applied():
        held_out = stage.validate(0)
    size = sum(
        p.numel() for name in ("decoder", "affine") for p in stage.modules[name].parameters()
    )
    lines = measurements(run)
    last = [line["stft"] for line in lines if "stft" in line][-1]
    return Result(
        statistics,
        outcome.step,
        held_out["stft_labels"],
        last,
        outcome.seconds,
        size,
        outcome.skipped,
    )


def page(results: Sequence[Result], command: str, facts: dict[str, str]) -> str:
    """docs/normalisation.md."""
    best = min(results, key=lambda result: result.stft)
    rows = [
        f"| {'**' + r.statistics + '**' if r is best else r.statistics} | {MEANING[r.statistics]} |"
        f" {r.stft:.4f} | {r.train:.4f} | {r.parameters / 1e6:.2f} M | {r.steps} | {r.seconds:.0f}"
        f" | {r.skipped} |"
        for r in sorted(results, key=lambda result: result.stft)
    ]
    told = "; ".join(f"{name} {value}" for name, value in facts.items())
    return "\n".join(
        [
            "# Normalisation without the future",
            "",
            (
                "AdaIN takes each channel's mean and deviation over the whole utterance, which no"
                " stream can know. These stand-ins were"
            ),
            (
                "trained in its place in the same small decoder, on the same batches and steps; the"
                " spectral distance (lower is better)"
            ),
            (
                "is that of `rtvc.audio.spectral.BandedSTFT` on held-out utterances, with averaged"
                " weights."
            ),
            "",
            (
                "| statistics | what is taken out | held-out distance | last of training | weights"
                " | steps | seconds | skipped |"
            ),
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"`{command}` ({told}). One seed: differences of a few thousandths are noise.",
            "",
        ]
    )


def main(
    steps: Annotated[int, typer.Option(min=1, help="of each run")] = 1500,
    labelled: Annotated[
        list[Path] | None, typer.Option(help="folders of labelled speech; repeatable")
    ] = None,
    runs: Annotated[Path, typer.Option(help="folder for the runs")] = Path("runs/normalisation"),
    out: Annotated[Path, typer.Option(help="page to write")] = Path("docs/normalisation.md"),
    only: Annotated[
        list[str] | None, typer.Option(help="stand-ins to compare; default: all; repeatable")
    ] = None,
    seed: Annotated[int, typer.Option(help="of data and weights")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print the results as JSON")] = False,
) -> None:
    """Compare the causal stand-ins for AdaIN's statistics."""
    import torch

    from rtvc.errors import ConfigError
    from rtvc.train.config import nearest
    from rtvc.train.export import commit

    names = list(get_args(Statistics))
    for name in only or ():
        if name not in names:
            raise ConfigError(f"there are no statistics {name!r}; {nearest(name, names)}")
    check_target(out, folders=True)
    folders = labelled or [Path("data/labelled"), Path("data/teacher")]
    results = [
        train(name, folders, steps, runs / f"{name}-{steps}-{seed}", seed) for name in only or names
    ]
    facts = {
        "commit": commit(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "date": time.strftime("%Y-%m-%d"),
    }
    write(out, page(results, f"python -m rtvc.benchmarks.normalisation --steps {steps}", facts))
    typer.echo(
        json.dumps([asdict(result) for result in results]) if as_json else f"{out} is written"
    )


if __name__ == "__main__":
    typer.run(main)
