"""`rtvc train STAGE [CONFIG.toml]`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["train"]


def train(
    stage: Annotated[str, typer.Argument(help="pitch, aligner, stage1, stage2, stage2_styletts2, finetune or stream")],
    config: Annotated[Path | None, typer.Argument(help="TOML file; default: the stage's own recipe")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. optimizer.lr=2e-4; repeatable")] = None,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="go on from the last checkpoint, or set the old run aside")] = True,
    max_steps: Annotated[int | None, typer.Option(help="stop after so many steps of this call")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="stop after so many minutes of this call")] = None,
    run: Annotated[Path | None, typer.Option(help="directory of checkpoints and logs; default: runs/STAGE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the outcome as JSON")] = False,
) -> None:
    """Train one stage. Run it under torchrun for several devices or machines."""
    from dataclasses import asdict

    import torch
    from rich.console import Console

    from rtvc.train.config import load_config
    from rtvc.train.loop import Trainer
    from rtvc.train.parallel import join
    from rtvc.train.stages import default_config, stage_type

    kind: Any = stage_type(stage)
    settings = load_config(kind.config_type, config or default_config(stage), overrides or ())
    torch.manual_seed(settings.seed)
    world = join(settings.device)
    try:
        folder = run or Path("runs") / stage
        outcome = Trainer(kind(settings), settings, folder, world=world).fit(resume=resume, max_steps=max_steps, max_minutes=max_minutes)
    finally:
        world.close()
    if not world.first:
        return
    if as_json:
        typer.echo(json.dumps(asdict(outcome) | {"run": str(folder)}))
        return
    losses = "  ".join(f"{name} {value:.4g}" for name, value in outcome.losses.items() if name.startswith("loss/"))
    Console().print(
        f"{outcome.reason} at step {outcome.step} after {outcome.seconds:.0f} s, {outcome.skipped} skipped  {losses}", highlight=False
    )
