"""The command line: `rtvc COMMAND …`, one module a command, imported only when it is called.

A module NAME of `cli` in the folder that it starts holds plain functions with typer annotations. If
it has a function NAME, that is the command; otherwise the functions in its `__all__` are the
subcommands of the group NAME.
"""

import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn, TextIO

import typer

from rtvc.errors import LONGEST, RtvcError
from rtvc.printable import printable

COMMANDS = {
    "convert": ("rtvc.cli.convert", "Convert a recording to the voice of a reference recording."),
    "voice": ("rtvc.cli.voice", "Make, mix and look at voice files."),
    "live": ("rtvc.clients.cli.live", "Speak into the microphone with another voice."),
    "serve": ("rtvc.engine.cli.serve", "Serve conversions over websockets."),
    "stream": ("rtvc.clients.cli.stream", "Send a file or the microphone through a server."),
    "control": ("rtvc.clients.cli.control", "Change a conversion while somebody speaks."),
    "devices": ("rtvc.clients.cli.devices", "List the audio devices."),
    "doctor": ("rtvc.clients.cli.doctor", "Check this machine: devices, speed, optional packages."),
    "weights": ("rtvc.cli.weights", "Fetch, verify and import pretrained weights."),
    "stats": ("rtvc.cli.stats", "Parameters, mult-adds, sizes and times of every component."),
    "evaluate": (
        "rtvc.engine.cli.evaluate",
        "Measure intelligibility, similarity, naturalness and speed.",
    ),
    "train": ("rtvc.cli.train", "Train the models, one stage at a time."),
    "teacher": ("rtvc.cli.teacher", "Make speech with the teacher, and re-voice it."),
    "data": ("rtvc.cli.data", "Prepare and look at training data."),
    "copies": (
        "rtvc.engine.cli.copies",
        "Say labelled speech again in other voices, for training.",
    ),
    "build": ("rtvc.engine.cli.build", "Build a compiled engine for this machine."),
    "bench": ("rtvc.benchmarks.cli.bench", "Measure latency and throughput."),
}
"""Every command in the order shown: its module, named as text since a command lives with the folder
it starts, and its line in `rtvc --help`."""


def available() -> list[str]:
    """The commands that this installation holds."""
    package = Path(__file__).parents[1]
    places = {
        name: package.joinpath(*module.split(".")[1:]) for name, (module, _) in COMMANDS.items()
    }
    return [name for name, place in places.items() if place.with_suffix(".py").is_file()]


def functions(module: ModuleType, name: str) -> list[Callable[..., Any]]:
    """A module's commands: the function of its own name, or those in its `__all__`."""
    if hasattr(module, name):
        return [getattr(module, name)]
    return [getattr(module, entry) for entry in module.__all__]


def attach(app: typer.Typer, name: str, module: ModuleType) -> None:
    """Registers a module's function, or its group of functions, on the application."""
    commands = functions(module, name)
    if [function.__name__ for function in commands] == [name]:
        app.command(name, context_settings=getattr(module, "SETTINGS", None))(commands[0])
        return
    group = typer.Typer(
        cls=getattr(module, "GROUP", None), no_args_is_help=True, help=COMMANDS[name][1]
    )
    group.callback()(lambda: None)  # a group with one command stays a group
    for function in commands:
        group.command(function.__name__.replace("_", "-"))(function)
    app.add_typer(group, name=name)


def application(requested: str | None = None) -> typer.Typer:
    """The typer application; only the requested command's module is imported, the others show their
    line of help."""
    app = typer.Typer(
        name="rtvc",
        help="Real-time one-shot voice conversion.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(root)
    for name in available():
        if name == requested:
            attach(app, name, importlib.import_module(COMMANDS[name][0]))
        else:
            app.command(name, help=COMMANDS[name][1])(lambda: None)
    return app


def show_version(asked: bool) -> None:
    """Prints the version, with the commit where it is known, and ends."""
    if asked:
        from rtvc.version import commit, version

        typer.echo(f"{version()} ({known})" if (known := commit()) else version())
        raise typer.Exit


def root(
    version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Real-time one-shot voice conversion."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code, as README.md lists them: 0, 1 for an abort, 2
    for wrong usage or an `RtvcError`, 128 and the signal's number for SIGINT (Ctrl-C), SIGTERM and
    SIGHUP."""
    # Idle OpenMP threads that spin cost up to 65 times the speed on busy cores; torch reads this
    # when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = arguments or being_completed()
    requested = next((word for word in words if not word.startswith("-")), None)
    try:
        with warnings.catch_warnings(), unwinding():
            warnings.simplefilter("once", UserWarning)
            warnings.showwarning = show_warning
            application(requested)(arguments, prog_name="rtvc")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except RtvcError as error:
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {escaped(error)}", highlight=False
        )
        return 2
    return 0


def being_completed() -> list[str]:
    """The words so far of a command line that a shell asks us to complete."""
    if "_RTVC_COMPLETE" not in os.environ:
        return []
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return typed.split()[1:]


@contextmanager
def unwinding() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end a command as an exception does: what it has put up, such as a
    virtual microphone or a temporary file, is taken down again. A second signal is ignored, so that
    this is not cut short; commands with handlers of their own (training, the server) keep theirs.
    """

    def ends(number: int, frame: FrameType | None) -> NoReturn:
        for each in taken:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signals = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    taken: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                taken[number] = signal.signal(number, ends)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings as one line for the user; those of libraries are for developers and are
    dropped."""
    if category.__module__.startswith("rtvc."):
        say(f"warning: {message}", err=True)


def say(text: str, err: bool = False) -> None:
    """Prints a text that quotes files, paths or peers: nothing in it acts on the terminal."""
    typer.echo(printable(text, LONGEST, keep="\n"), err=err)


def escaped(error: RtvcError) -> str:
    """The message with its square brackets protected from rich's markup."""
    from rich.markup import escape

    return escape(str(error))
