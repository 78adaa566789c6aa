"""Choices of model and training against their absence: `python -m rtvc.benchmarks.ablations
QUESTION …`.

A question of `ablations.toml` has several answers. Each is trained by the same stage on the same
data for the same steps, and measured on the same held-out speakers; the page says which won. Every
run goes on where it was stopped.
"""

import json
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from rtvc.errors import TrainingError
from rtvc.files import write, write_json
from rtvc.train.config import Section, nearest, validated
from rtvc.train.monitor import measurements

HERE = Path(__file__).parent
PLAN, RESULTS, PAGE = (
    HERE / "ablations.toml",
    HERE / "results" / "ablations.json",
    Path("docs/ablations.md"),
)


class Question(Section):
    """A choice to be made, and how."""

    title: str
    stage: str
    steps: int = Field(ge=1)
    measures: list[str] = Field(min_length=1)
    """Held-out measurements that the page shows, the deciding one first."""
    higher_is_better: bool = True
    """Of the first of them."""
    base: list[str] = Field(default_factory=list)
    """`key=value` for every run, as `rtvc train --set` takes them."""
    answers: dict[str, list[str]] = Field(min_length=2)
    """Name -> what it adds to `base`."""
    says: str = ""
    """What follows, in a sentence, once it is known."""


def questions(plan: Path = PLAN) -> dict[str, Question]:
    """The questions of a plan by name."""
    tables = tomllib.loads(plan.read_text(encoding="utf-8"))
    return {
        name: validated(Question, table, f"[{name}] of {plan}") for name, table in tables.items()
    }


def answer(
    question: Question, answer: str, run: Path, seed: int, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Trains one answer, or goes on with it; what was measured at the end, with averaged
    weights."""
    import torch
    from rich.console import Console

    from rtvc.train.config import load_config
    from rtvc.train.loop import Trainer
    from rtvc.train.registry import default_config, stage_type

    kind: Any = stage_type(question.stage)
    often = max(1, question.steps // 5)
    settings = [
        f"seed={seed}",
        f"steps={question.steps}",
        f"log.validate_every={often}",
        "log.tensorboard=false",
        "checkpoint.keep=1",
    ]
    given = [*settings, *question.base, *question.answers[answer], *overrides]
    config = load_config(kind.config_type, default_config(question.stage), given)
    torch.manual_seed(seed)
    outcome = Trainer(kind(config), config, run, console=Console(stderr=True)).fit()
    lines = measurements(run)
    last = {
        key.removeprefix("valid/"): value
        for line in lines
        for key, value in line.items()
        if key.startswith("valid/")
    }
    if missing := [name for name in question.measures if name not in last]:
        raise TrainingError(
            f"expected held-out measurements of {', '.join(missing)}, {run} has none: hold speakers"
            " out who have such labels"
        )
    return {
        "answer": answer,
        "seed": seed,
        "steps": outcome.step,
        "seconds": round(outcome.seconds),
        **{name: round(float(last[name]), 5) for name in question.measures},
    }


def table(question: Question, results: Sequence[dict[str, Any]]) -> list[str]:
    """A question's part of the page."""
    first = question.measures[0]
    ordered = sorted(results, key=lambda result: result[first], reverse=question.higher_is_better)
    shown = [name.replace("_", " ") for name in question.measures]
    lines = [
        f"## {question.title}",
        "",
        f"| answer | seed | {' | '.join(shown)} | steps | seconds |",
    ]
    lines.append("| --- " * (len(question.measures) + 4) + "|")
    for result in ordered:
        values = " | ".join(f"{result[name]:.4f}" for name in question.measures)
        lines.append(
            f"| {result['answer']} | {result['seed']} | {values} | {result['steps']} |"
            f" {result['seconds']} |"
        )
    base = " ".join(f"`{setting}`" for setting in question.base)
    lines += [
        "",
        f"Stage `{question.stage}`" + (f" with {base}." if base else "."),
        *([question.says] if question.says else []),
        "",
    ]
    return lines


def page(
    answers: dict[str, list[dict[str, Any]]], plan: dict[str, Question], facts: dict[str, str]
) -> str:
    """docs/ablations.md."""
    told = "; ".join(f"{name} {value}" for name, value in facts.items())
    head = [
        "# Ablations",
        "",
        (
            "Each choice of the model and its training against its absence: the same data, the same"
            " batches, the same steps, measured on the"
        ),
        (
            "same speakers that no training heard, with averaged weights. The answer that measures"
            " best stands first."
        ),
        "",
    ]
    parts = [
        line
        for name, question in plan.items()
        if answers.get(name)
        for line in table(question, answers[name])
    ]
    return "\n".join([*head, *parts, f"`python -m rtvc.benchmarks.ablations` ({told}).", ""])


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="questions; default: those that have no answer yet")
    ] = None,
    labelled: Annotated[
        list[Path] | None, typer.Option(help="folders of labelled speech; repeatable")
    ] = None,
    runs: Annotated[Path, typer.Option(help="folder for the runs")] = Path("runs/ablations"),
    seed: Annotated[int, typer.Option(help="of data and weights")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for every run; repeatable")
    ] = None,
    plan_file: Annotated[Path, typer.Option("--plan", help="questions, as TOML")] = PLAN,
    results_file: Annotated[
        Path, typer.Option("--results", help="answers so far, JSON; those of this run are added")
    ] = RESULTS,
    out: Annotated[Path, typer.Option(help="page to write")] = PAGE,
) -> None:
    """Answer questions about the model by training each answer."""
    import torch

    from rtvc.errors import ConfigError
    from rtvc.train.export import commit

    plan = questions(plan_file)
    for name in names or ():
        if name not in plan:
            raise ConfigError(f"there is no question {name!r}; {nearest(name, list(plan))}")
    results: dict[str, list[dict[str, Any]]] = (
        json.loads(results_file.read_text()) if results_file.is_file() else {}
    )
    given = list(overrides or ())
    if labelled:
        given.append(f"data.labelled={json.dumps([str(folder) for folder in labelled])}")
    for name in names or [name for name in plan if not results.get(name)]:
        for choice in plan[name].answers:
            run = runs / name / f"{'-'.join(choice.split())}-{seed}".replace("/", "-")
            result = answer(plan[name], choice, run, seed, given)
            kept = [
                old
                for old in results.get(name, [])
                if (old["answer"], old["seed"]) != (choice, seed)
            ]
            results[name] = [*kept, result]
            write_json(results_file, results)
            facts = {
                "commit": commit(),
                "torch": torch.__version__,
                "threads": str(torch.get_num_threads()),
                "date": time.strftime("%Y-%m-%d"),
            }
            write(out, page(results, plan, facts))
    typer.echo(f"{out} is written")


if __name__ == "__main__":
    typer.run(main)
