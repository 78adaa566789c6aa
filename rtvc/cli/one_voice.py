"""`rtvc train voice RECORDINGS -o FILE`: fine-tune to one voice, and say what that gave."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtvc.cli.targets import Force, check_weights

if TYPE_CHECKING:
    from rtvc.train.one_voice import Split

__all__ = ["voice"]

STAGE = "stream_voice"


def voice(
    recordings: Annotated[
        Path,
        typer.Argument(
            help=(
                "of the person, who agreed: a folder (texts beside them, if there are any) or a"
                " .tsv or .jsonl table; ten minutes are good, long files are cut"
            )
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="weights to write, .safetensors; the voice goes beside it, .voice"
        ),
    ],
    sources: Annotated[
        Path | None,
        typer.Option(
            help=(
                "what other people say, a folder or a table: measured is how it sounds in the"
                " voice; default: the person's own held-out recordings"
            ),
            show_default=False,
        ),
    ] = None,
    held_out: Annotated[
        int,
        typer.Option(min=2, help="recordings that nothing learns from; at most a fifth of them"),
    ] = 10,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="of training, 1.3 s each on one core", show_default="300"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="shipped, or a file of a streaming model's weights")
    ] = "shipped",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="everything in between is kept here", show_default="runs/voice-NAME of -o"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value of stage stream_voice, e.g. optimizer.lr=1e-4"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="go on where it was, or set the old run aside")
    ] = True,
    measured: Annotated[
        bool, typer.Option("--measure/--no-measure", help="say what it gave, before against after")
    ] = True,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the outcome as JSON")] = False,
) -> None:
    """Fine-tune the streaming model to one voice: split, train, export, and measure before against
    after on recordings that were held out. Run it again and it goes on."""
    from rich.console import Console

    from rtvc.cli.progress import busy
    from rtvc.evaluate.evaluators import standard
    from rtvc.files import check_folder, write_json
    from rtvc.models_by_name import load
    from rtvc.train import one_voice
    from rtvc.voices.voice_file import check_voice_file

    name = out.stem
    folder = check_folder(folder or Path("runs") / f"voice-{name}")
    check_weights(out, sources=[recordings], force=force, folders=True)
    beside = out.with_suffix(".voice")
    out.parent.mkdir(parents=True, exist_ok=True)
    check_voice_file(beside, sources=[recordings], force=force)
    evaluators = standard() if measured else None
    folder.mkdir(parents=True, exist_ok=True)
    converter = load(None if model == "shipped" else model)
    with busy("checking the recordings"):
        split = one_voice.gather(recordings, folder, held_out, lambda: None)
    Console(stderr=True).print(
        f"{split.minutes:.1f} minutes to learn from, {len(split.held_out)} of"
        f" {len(split.train) + len(split.held_out)} recordings held out, {len(split.refused)}"
        " refused",
        highlight=False,
    )
    with busy("making the voice"):
        target = one_voice.make_voice(converter, split, name)
    target.save(folder / "voice.voice")
    outcome = train(folder, model, steps, overrides or (), resume)
    one_voice.export(
        outcome["base"],
        folder / "run",
        out,
        {"stage": STAGE, "step": str(outcome["step"]), "minutes": f"{split.minutes:.1f}"},
    )
    target.save(beside)
    result: dict[str, Any] = {
        "weights": str(out),
        "voice": str(beside),
        "minutes": round(split.minutes, 2),
        "held_out": len(split.held_out),
        "refused": len(split.refused),
        "steps": outcome["step"],
        "seconds": round(outcome["seconds"], 1),
    }
    if evaluators is not None:
        comparison = before_and_after(converter, split, folder, out, sources, evaluators)
        result["metrics"] = {
            metric: difference and difference._asdict() for metric, difference in comparison.items()
        }
        write_json(folder / "result.json", result)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    if evaluators is not None:
        from rtvc.evaluate.tables import of_comparison

        Console().print(of_comparison(comparison, "before", "after"))
    Console(soft_wrap=True).print(f"{out}, {beside}", highlight=False, markup=False)


def train(
    folder: Path, model: str, steps: int | None, overrides: "list[str] | tuple[()]", resume: bool
) -> dict[str, Any]:
    """Runs the stage to its end; how many steps and seconds, and the weights it began with.

    Raises:
        TrainingError: it was interrupted, or failed.
    """
    import torch

    from rtvc.errors import TrainingError
    from rtvc.train.config import load_config
    from rtvc.train.loop import Trainer
    from rtvc.train.registry import default_config, make_stage, stage_type

    kind: Any = stage_type(STAGE)
    given = {
        "data.manifest": folder / "train.jsonl",
        "data.valid": folder / "held_out.jsonl",
        "voice": folder / "voice.voice",
        "model": model,
    }
    words = [f"{key}={json.dumps(str(value))}" for key, value in given.items()]
    words += [f"steps={steps}"] if steps else []
    settings = load_config(kind.config_type, default_config(STAGE), [*words, *overrides])
    torch.manual_seed(settings.seed)
    outcome = Trainer(make_stage(STAGE, settings), settings, folder / "run").fit(resume=resume)
    if outcome.reason != "finished":
        raise TrainingError(
            f"the training stopped early ({outcome.reason}) at step {outcome.step}: run the same"
            " command again and it goes on"
        )
    return {"step": outcome.step, "seconds": outcome.seconds, "base": settings.model}


def before_and_after(
    converter: Any, split: "Split", folder: Path, out: Path, sources: Path | None, evaluators: Any
) -> dict[str, Any]:
    """Every metric of the same conversions by the weights that were begun with, and by those that
    were made; both results are kept in the folder."""
    from rtvc.cli.progress import stages
    from rtvc.data.manifest import Entry
    from rtvc.data.prepare import find
    from rtvc.data.registry import cache_dir
    from rtvc.errors import TrainingError
    from rtvc.evaluate.measurements import Recordings
    from rtvc.evaluate.studies.compare import compare
    from rtvc.files import write_json
    from rtvc.models_by_name import load
    from rtvc.train import one_voice
    from rtvc.voices.voice import Voice

    kept = cache_dir() / "evaluate" / "recordings"
    known = Recordings(evaluators, kept)
    others = [entry for entry in find(sources) if isinstance(entry, Entry)] if sources else None
    if others == []:
        raise TrainingError(f"expected recordings in {sources}, got none that can be read")
    target = Voice.load(folder / "voice.voice")
    conversions = one_voice.pairs(
        one_voice.spoken(others or split.held_out, known), split, target.name
    )
    results = {}
    with stages(["before", "after"], 2 * len(conversions)) as advance:
        for when, model in (("before", converter), ("after", load(out))):

            def told(stage: str, done: int, total: int, when: str = when) -> None:
                advance(when, done + (total if stage == "measure" else 0), 2 * total)

            results[when] = one_voice.measure(
                model,
                target,
                conversions,
                title=when,
                cache=folder / "measured",
                recordings=kept,
                evaluators=evaluators,
                progress=told,
            )
            write_json(folder / f"{when}.json", results[when])
    comparison = compare(results["before"], results["after"])
    comparison.pop("rtf")  # both are of one size: what differs is what else the machine did
    return comparison
