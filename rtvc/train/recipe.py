"""The recipe that makes the first generation's weights: every command in order, each of which goes
on where it was."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtvc.errors import ConfigError, TrainingError
from rtvc.train.config import nearest


@dataclass(frozen=True)
class Step:
    """One command of the recipe."""

    name: str
    arguments: tuple[str, ...]
    """Of `rtvc`."""

    def __str__(self) -> str:
        return "rtvc " + " ".join(
            f"'{word}'" if set(word) & set('[]{}" ') else word for word in self.arguments
        )


TRAINED = ("bridge", "stream_content", "stream_pitch", "stream", "stream_joint")
"""The stages of the recipe, in their order."""


def plan(
    manifest: Path,
    out: Path,
    folder: Path,
    *,
    texts: Path | None = None,
    utterances: int = 700,
    overrides: Sequence[str] = (),
) -> list[Step]:
    """The commands from a manifest of recordings to the streaming model's weights.

    Args:
        manifest: recordings of many speakers, .tsv or .jsonl.
        out: the safetensors file.
        folder: everything in between is kept there.
        texts: for the teacher, one a line or a .tsv with a column text or transcript; None takes
            the manifest's.
        utterances: of the teacher, 5 s each on average.
        overrides: STAGE.key=value for the stages' configurations.

    Raises:
        ConfigError: an override names no stage of the recipe.
    """
    teacher, labelled, runs = (
        folder / "teacher",
        folder / "labelled",
        {name: folder / "runs" / name for name in TRAINED},
    )
    settings: dict[str, list[str]] = {
        "bridge": [
            f"data.labelled={json.dumps([str(teacher)])}",
            f"data.cache={json.dumps(str(folder / 'heard'))}",
        ],
        **{
            name: [f"data.labelled={json.dumps([str(labelled), str(teacher)])}"]
            for name in TRAINED[1:]
        },
    }
    for name, needed in (
        ("stream", ["stream_content"]),
        ("stream_joint", ["stream_content", "stream"]),
    ):
        settings[name].append(
            f"init=[{', '.join(f'{{path={json.dumps(str(runs[run]))}}}' for run in needed)}]"
        )
    for override in overrides:
        stage, dot, rest = override.partition(".")
        if not dot or stage not in TRAINED:
            raise ConfigError(
                f"--set: expected STAGE.key=value, got {override!r}; {nearest(stage, TRAINED)}"
            )
        settings[stage].append(rest)

    def train(name: str) -> Step:
        given = [word for setting in settings[name] for word in ("--set", setting)]
        return Step(name, ("train", "stage", name, "--run", str(runs[name]), "--json", *given))

    trained = [str(runs[name]) for name in TRAINED[1:]]
    return [
        Step("teacher", ("weights", "import-kokoro", "--json")),
        Step(
            "speech",
            (
                "teacher",
                "generate",
                str(teacher),
                "--texts",
                str(texts or manifest),
                "--count",
                str(utterances),
                "--json",
            ),
        ),
        train("bridge"),
        Step(
            "labels",
            (
                "data",
                "label",
                str(manifest),
                "-o",
                str(labelled),
                "--bridge",
                str(runs["bridge"]),
                "--json",
            ),
        ),
        train("stream_content"),
        train("stream_pitch"),
        train("stream"),
        train("stream_joint"),
        Step("export", ("train", "export", *trained, "-o", str(out), "--json")),
    ]


def run_step(step: Step) -> tuple[int, str]:
    """Runs a command in a process of its own; its exit code and what it printed. An interruption
    reaches the command alone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rtvc", *step.arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread
        before = None
    try:
        printed, _ = process.communicate()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    return process.returncode, printed


def follow(
    steps: Sequence[Step],
    say: Callable[[str], None],
    run: Callable[[Step], tuple[int, str]] = run_step,
) -> Mapping[str, dict[str, object]]:
    """Runs the commands one after another; returns what each printed as JSON.

    Raises:
        TrainingError: one failed or was interrupted. The same recipe goes on from there.
    """
    results: dict[str, dict[str, object]] = {}
    for number, step in enumerate(steps, 1):
        say(f"{number}/{len(steps)} {step.name}: {step}")
        code, printed = run(step)
        if code:
            raise TrainingError(
                f"step {step.name} of the recipe ended with code {code}: mend what it says and run"
                " the recipe again"
            )
        try:
            results[step.name] = dict(json.loads(printed.strip().splitlines()[-1]))
        except (IndexError, ValueError) as error:
            raise TrainingError(
                f"step {step.name} of the recipe printed no result: {printed[-200:]!r}"
            ) from error
        if step.name in TRAINED and (reason := results[step.name].get("reason")) != "finished":
            raise TrainingError(
                f"step {step.name} of the recipe stopped early ({reason}): run the recipe again and"
                " it goes on"
            )
    return results
