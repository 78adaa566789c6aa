"""`rtvc bench cold`: seconds from the command to the first converted sound on a machine that never
ran rtvc, an empty cache standing for it.

Every start is a process of its own with a cache of its own. Another checkout can be started in turn
with this one, so that both meet the same machine.
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rtvc.benchmarks.live.pulse import room
from rtvc.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
RUN = "import sys; from rtvc.cli import main; sys.exit(main())"
STREAM = """
import sys, soundfile, rtvc
vc = rtvc.load()
voice = vc.voice(sys.argv[1])
x, rate = soundfile.read(sys.argv[2], dtype="float32")
stream = vc.stream(voice, sample_rate=rate, backend="auto")
for start in range(0, len(x), rate // 40):
    if abs(stream.push(x[start : start + rate // 40])).max(initial=0) > 1e-4:
        break
print("heard", flush=True)
"""
"""A program of a user: ends at the first sound."""
PATIENCE_S = 900.0
"""Seconds after which a start has failed."""


@contextmanager
def process(
    code: str, arguments: Sequence[str], root: Path, extra: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """A Python process of one checkout, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="rtvc-cold-", ignore_cleanup_errors=True) as cache:
        environment = {
            **os.environ,
            "OMP_WAIT_POLICY": "passive",
            **(extra or {}),
            "PYTHONPATH": str(root),
            "XDG_CACHE_HOME": cache,
            "RTVC_CACHE": "",
        }
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={name: value for name, value in environment.items() if value},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield child
        finally:
            child.terminate()
            child.wait(30)


def ended(child: "subprocess.Popen[str]") -> None:
    """Waits for a process that is to end well.

    Raises:
        EngineError: it did not.
    """
    if child.wait(PATIENCE_S):
        raise EngineError(f"a start ended with {child.returncode}: run the command by itself")


def line_with(child: "subprocess.Popen[str]", word: str) -> str:
    """The first line of a process that holds a word.

    Raises:
        EngineError: it ended before.
    """
    assert child.stdout is not None
    for line in child.stdout:
        if word in line:
            return line
    raise EngineError(f"a start ended before {word!r}: run the command by itself")


def since(began: float) -> float:
    """Seconds from a moment until now."""
    return time.perf_counter() - began


def whole(*arguments: str) -> Callable[[Path], float]:
    """A command that is over when its sound is there."""

    def start(root: Path) -> float:
        began = time.perf_counter()
        with process(RUN, arguments, root) as child:
            ended(child)
            return since(began)

    return start


def importing(root: Path) -> float:
    """`import rtvc`."""
    began = time.perf_counter()
    with process("import rtvc", [], root) as child:
        ended(child)
        return since(began)


def library(root: Path) -> float:
    """`vc.stream(voice, backend="auto")` until it gives sound."""
    sounds = [str(EXAMPLES / "reference.flac"), str(EXAMPLES / "source.flac")]
    began = time.perf_counter()
    with process(STREAM, sounds, root) as child:
        line_with(child, "heard")
        return since(began)


def serving(root: Path) -> float:
    """`rtvc serve` until a client hears something converted."""
    voices = Path(tempfile.mkdtemp(prefix="rtvc-voices-"))
    (voices / "anna.voice").write_bytes(voice_file().read_bytes())
    import rtvc.clients.websocket.client  # noqa: F401  (a client that runs already)

    began = time.perf_counter()
    with process(RUN, ["serve", "--port", "0", "--voices", str(voices)], root) as child:
        address = line_with(child, "listening on").split()[-1].replace("http", "ws")
        asyncio.run(first_sound(address))
        return since(began)


async def first_sound(address: str) -> None:
    """Speaks to a server until something comes back."""
    from rtvc.clients import connect

    noise = np.random.default_rng(0).normal(0, 0.1, (400, 480)).astype(np.float32)

    async def microphone() -> Any:
        for block in noise:
            yield block
            await asyncio.sleep(0.01)

    async with connect(address, voice="anna", sample_rate=48_000) as client:
        async for block in client.convert(microphone()):
            if np.abs(block).max(initial=0) > 1e-4:
                return


def living(root: Path) -> float:
    """`rtvc live` on a private sound server until the loudspeaker sounds."""
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000 * 60).astype(np.float32)
    arguments = ["live", "--voice", str(EXAMPLES / "reference.flac"), "--no-gate", "--json"]
    with room() as place, ExitStack() as stack:
        player = place.say(noise)
        stack.callback(player.terminate)
        began = time.perf_counter()
        child = stack.enter_context(process(RUN, arguments, root, place.environment))
        level = -120.0
        while level < -60:
            line = line_with(child, "level_out_db")
            level = float(line.split('"level_out_db": ')[1].split(",")[0])
        return since(began)


def voice_file() -> Path:
    """The example's voice, made once."""
    place = Path(tempfile.gettempdir()) / f"rtvc-cold-{os.getpid()}.voice"
    if not place.exists():
        from rtvc.models_by_name import load

        load().voice(EXAMPLES / "reference.flac").save(place)
    return place


def convert(*extra: str) -> Callable[[Path], float]:
    """`rtvc convert` of five seconds."""
    sounds = [str(EXAMPLES / "source.flac"), "-r", str(EXAMPLES / "reference.flac")]
    output = Path(tempfile.gettempdir()) / f"rtvc-cold-{os.getpid()}.wav"
    return whole("convert", *sounds, "-o", str(output), "--force", *extra)


STARTS: dict[str, Callable[[Path], float]] = {
    "import": importing,
    "help": whole("--help"),
    "convert": convert(),
    "convert --fit 0": convert("--fit", "0"),
    "stream": library,
    "serve": serving,
    "live": living,
}
"""What can be started, each returning the seconds until its first sound was there."""


def cold(
    starts: Sequence[str], rounds: int = 1, against: Path | None = None
) -> list[dict[str, Any]]:
    """Times starts, and those of another checkout in turn.

    Args:
        starts: names out of `STARTS`.
        rounds: of each.
        against: the folder of the other checkout.

    Returns:
        For each start: `start`, `seconds` by the clock until the first sound, `cpu` by the
        processor until all had ended (medians), `all` as pairs of both, and the machine's `load`;
        with `against`, the same of the other checkout as `before`, `before_cpu` and
        `before_all`.
    """
    rows = []
    voice_file()
    for name in starts:
        times: dict[Path, list[tuple[float, float]]] = {ROOT: []}
        if against is not None:
            times[against] = []
        for _ in range(rounds):
            for root, taken in times.items():
                worked, seconds = processor(), STARTS[name](root)
                taken.append((round(seconds, 2), round(processor() - worked, 2)))
        row: dict[str, Any] = {"start": name, "load": round(os.getloadavg()[0], 1)}
        for words, taken in zip(
            (("seconds", "cpu", "all"), ("before", "before_cpu", "before_all")),
            times.values(),
            strict=False,
        ):
            row |= dict(zip(words, (*np.median(taken, 0).tolist(), taken), strict=True))
        rows.append(row)
    return rows


def processor() -> float:
    """Seconds that processes which this one started, and which ended, had of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
