"""`rtvc train STAGE [CONFIG.toml]`, `rtvc train export RUN… -o FILE`, `rtvc train keep RUN -o
FILE`, `rtvc train recipe MANIFEST -o FILE`, `rtvc train voice RECORDINGS -o FILE`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rtvc.cli import say
from rtvc.cli.one_voice import voice
from rtvc.cli.targets import Force, check_weights

__all__ = ["export", "keep", "recipe", "stage", "voice"]

Json = Annotated[bool, typer.Option("--json", help="print the outcome as JSON")]


class GROUP(TyperGroup):
    """`rtvc train NAME` is short for `rtvc train stage NAME`, unless NAME is a command of the
    group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `stage` before everything that is not a command."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["stage", *args]
        return super().parse_args(ctx, args)


def stage(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STAGE",
            help=(
                "as docs/training.md lists them: pitch, aligner, stage1, stage2, …, units, judge,"
                " melody, joint"
            ),
        ),
    ],
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; default: the stage's own recipe")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, e.g. optimizer.lr=2e-4; repeatable"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--fresh", help="go on from the last checkpoint, or set the old run aside"
        ),
    ] = True,
    max_steps: Annotated[
        int | None, typer.Option(help="stop after so many steps of this call")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="stop after so many minutes of this call")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="directory of checkpoints and logs; default: runs/STAGE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train one stage; `rtvc train STAGE` is the same. Run it under torchrun for several devices or
    machines."""
    from dataclasses import asdict

    import torch
    from rich.console import Console

    from rtvc.files import check_folder
    from rtvc.train.config import load_config
    from rtvc.train.loop import Trainer
    from rtvc.train.parallel import join
    from rtvc.train.registry import default_config, make_stage, stage_type

    check_folder(run or Path("runs") / name)
    kind: Any = stage_type(name)
    settings = load_config(kind.config_type, config or default_config(name), overrides or ())
    torch.manual_seed(settings.seed)
    world = join(settings.device)
    try:
        folder = run or Path("runs") / name
        outcome = Trainer(make_stage(name, settings), settings, folder, world=world).fit(
            resume=resume, max_steps=max_steps, max_minutes=max_minutes
        )
    finally:
        world.close()
    if not world.first:
        return
    if as_json:
        typer.echo(json.dumps(asdict(outcome) | {"run": str(folder)}))
        return
    losses = "  ".join(
        f"{name} {value:.4g}" for name, value in outcome.losses.items() if name.startswith("loss/")
    )
    Console().print(
        f"{outcome.reason} at step {outcome.step} after {outcome.seconds:.0f} s, {outcome.skipped}"
        f" skipped  {losses}",
        highlight=False,
    )


def export(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help=(
                "runs of stream_content, stream_pitch and stream, or earlier models; later ones win"
            )
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="safetensors file of the streaming model")
    ],
    fact: Annotated[
        list[str] | None, typer.Option(help="key=value for the header; repeatable")
    ] = None,
    sharpen: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="raise the decoder's formants by this share, which training by distances flattens;"
            " once, 0.3 is usual",
        ),
    ] = 0.0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Put the parts that several runs have trained into one file of the streaming model."""
    from rtvc.errors import ConfigError
    from rtvc.train import export as exporting

    facts = {key: value for key, _, value in (entry.partition("=") for entry in fact or ())}
    if empty := [key for key, value in facts.items() if not key or not value]:
        raise ConfigError(f"--fact takes key=value, {', '.join(map(repr, empty))} came")
    check_weights(out, sources=runs, force=force)
    tell_file(exporting.export(runs, out, facts, sharpen), as_json)


def keep(
    run: Annotated[Path, typer.Argument(help="a run's folder")],
    out: Annotated[Path, typer.Option("-o", "--out", help="safetensors file")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Keep a run's weights small, eight bits each, for `[[init]]` on another machine."""
    from rtvc.train import export as exporting

    check_weights(out, sources=[run], force=force)
    tell_file(exporting.keep(run, out), as_json)


def tell_file(path: Path, as_json: bool) -> None:
    """Says what was written, and its size."""
    size = path.stat().st_size
    say(
        json.dumps({"path": str(path), "bytes": size})
        if as_json
        else f"{path}  {size / 1e6:.1f} MB"
    )


def recipe(
    manifest: Annotated[
        Path, typer.Argument(help="recordings of many speakers, as `rtvc data prepare` writes it")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="safetensors file of the streaming model")
    ],
    folder: Annotated[Path, typer.Option(help="everything in between is kept here")] = Path(
        "runs/recipe"
    ),
    texts: Annotated[
        Path | None,
        typer.Option(help="for the teacher; default: the manifest's", show_default=False),
    ] = None,
    utterances: Annotated[
        int, typer.Option(min=1, help="of the teacher, 5 s each on average")
    ] = 700,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="STAGE.key=value, e.g. stream.steps=20000; repeatable"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the commands")] = False,
    as_json: Json = False,
) -> None:
    """Make the streaming model's weights from recordings: every command in order; run it again and
    it goes on."""
    from rtvc.files import check_folder
    from rtvc.train.recipe import follow, plan

    check_weights(out, folders=True)
    check_folder(folder)
    steps = plan(
        manifest, out, folder, texts=texts, utterances=utterances, overrides=overrides or ()
    )
    if dry_run:
        typer.echo(
            json.dumps([step.arguments for step in steps])
            if as_json
            else "\n".join(map(str, steps))
        )
        return
    results = follow(steps, lambda line: typer.echo(line, err=True))
    typer.echo(json.dumps(results) if as_json else f"{out} is made")
