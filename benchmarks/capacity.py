"""From measured streams per core to machines, money and network: `python -m
rtvc.benchmarks.capacity --write docs/capacity.md`.

Every number in the tables is computed here from the inputs that are printed with them;
`docs/capacity.md` holds the output.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rtvc.engine.protocol.frames import HEADER
from rtvc.engine.streams.capacity import HEADROOM
from rtvc.files import write

SPEAKERS = (1_000, 100_000, 10_000_000)
BEGIN, END = "<!-- begin: python -m rtvc.benchmarks.capacity -->", "<!-- end -->"
HOURS = 730
"""Hours of a month."""


class Inputs(BaseModel):
    """What the tables are made of; the defaults of the first three were measured (see
    docs/capacity.md), the others are assumptions.

    Attributes:
        tick_ms: milliseconds of audio a step.
        step_ms: CPU milliseconds of one stream's step.
        streams_per_core: sessions that one thread holds with `HEADROOM`.
        share: of the places that are in use: the rest holds the sessions of a replica that dies,
            and what autoscaling is late for.
        cores_per_machine: of the machines that are rented.
        dollars_per_core_hour: of one core.
        gpu_streams: that one GPU holds; None while nobody measured it.
        dollars_per_gpu_hour: of one GPU.
        rate: samples a second.
        frame_ms: of the client's frames, and of Opus packets.
        opus_bits: a second.
        saved_bytes: of a session in the vault.
        saves_per_second: of a session.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tick_ms: float = Field(default=25.0, gt=0)
    step_ms: tuple[float, float] = (1.4, 2.3)
    streams_per_core: int = Field(default=12, ge=1)
    share: float = Field(default=0.7, gt=0, le=1)
    cores_per_machine: int = Field(default=64, ge=1)
    dollars_per_core_hour: float = Field(default=0.04, ge=0)
    gpu_streams: int | None = Field(default=None, ge=1)
    dollars_per_gpu_hour: float = Field(default=2.5, ge=0)
    rate: int = Field(default=24_000, ge=8_000)
    frame_ms: float = Field(default=20.0, gt=0)
    opus_bits: int = Field(default=24_000, ge=6_000)
    saved_bytes: int = Field(default=433_000, ge=0)
    saves_per_second: float = Field(default=1.0, gt=0)


def streams_by_step(tick_ms: float, step_ms: float) -> int:
    """Streams whose steps, one after the other, fill no more than `HEADROOM` of a tick; batches do
    better."""
    return int(HEADROOM * tick_ms / step_ms)


def machines(speakers: int, inputs: Inputs) -> tuple[int, int, float]:
    """Cores, machines, and dollars an hour for so many concurrent speakers."""
    cores = math.ceil(speakers / (inputs.streams_per_core * inputs.share))
    count = math.ceil(cores / inputs.cores_per_machine)
    return cores, count, count * inputs.cores_per_machine * inputs.dollars_per_core_hour


def gpus(speakers: int, inputs: Inputs) -> tuple[int, float] | None:
    """GPUs and dollars an hour; None while nobody measured a GPU."""
    if inputs.gpu_streams is None:
        return None
    count = math.ceil(speakers / (inputs.gpu_streams * inputs.share))
    return count, count * inputs.dollars_per_gpu_hour


def websocket_header(payload: int, masked: bool) -> int:
    """Bytes in front of a websocket frame's payload (RFC 6455, section 5.2)."""
    return 2 + (0 if payload < 126 else 2 if payload < 65_536 else 8) + 4 * masked


TCP_IP = 52
"""Bytes of an IPv4 and a TCP header with time stamps; every frame is its own packet, because none
waits for the next."""
TLS = 22
"""Bytes of a TLS 1.3 record around its content: header 5, type 1, tag 16."""


def wire(payload: float, frame_ms: float, *, masked: bool) -> float:
    """Bytes a second on the network of frames that hold so many bytes of audio, TLS included."""
    size = HEADER.size + math.ceil(payload)
    return (size + websocket_header(size, masked) + TLS + TCP_IP) * 1000 / frame_ms


def streams_on_the_wire(inputs: Inputs) -> dict[str, tuple[float, float]]:
    """Bytes a second of one stream, to the server and back, by format."""
    pcm, opus = 2 * inputs.rate / 1000, inputs.opus_bits / 8_000
    return {
        "PCM s16": (
            wire(pcm * inputs.frame_ms, inputs.frame_ms, masked=True),
            wire(pcm * inputs.tick_ms, inputs.tick_ms, masked=False),
        ),
        "Opus": (
            wire(opus * inputs.frame_ms, inputs.frame_ms, masked=True),
            wire(opus * inputs.frame_ms, inputs.frame_ms, masked=False),
        ),
    }


def human(bits: float) -> str:
    """Bits a second with a unit."""
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if bits < 1000:
            return f"{bits:.3g} {unit}"
        bits /= 1000
    return f"{bits:.3g} Tbit/s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def report(inputs: Inputs) -> str:
    """Everything that is printed."""
    low, high = (streams_by_step(inputs.tick_ms, step) for step in reversed(inputs.step_ms))
    given = [[f"`{name}`", str(value)] for name, value in inputs.model_dump().items()]
    cpu, gpu, net = [], [], []
    for speakers in SPEAKERS:
        cores, count, dollars = machines(speakers, inputs)
        per = dollars / speakers
        cpu.append(
            [
                f"{speakers:,}",
                f"{cores:,}",
                f"{count:,}",
                f"{dollars:,.0f}",
                f"{dollars * HOURS:,.0f}",
                f"{per:.4f}",
            ]
        )
        rows = gpus(speakers, inputs)
        unknown = ["not measured on a GPU yet"] * 2
        gpu.append(
            [f"{speakers:,}", *(unknown if rows is None else [f"{rows[0]:,}", f"{rows[1]:,.0f}"])]
        )
    each = streams_on_the_wire(inputs)
    for name, (up, down) in each.items():
        total = [human(8 * speakers * max(up, down)) for speakers in SPEAKERS]
        net.append([name, f"{up:,.0f}", f"{down:,.0f}", *total])
    saved = human(8 * inputs.saved_bytes * inputs.saves_per_second)
    node = inputs.cores_per_machine * inputs.streams_per_core * inputs.share
    lines = [
        "Inputs:",
        "",
        *table(["input", "value"], given),
        "",
        (
            f"One stream's step of {inputs.step_ms[0]:g} to {inputs.step_ms[1]:g} ms in a tick of"
            f" {inputs.tick_ms:g} ms, of which {HEADROOM:.0%} may be filled, gives {low} to {high}"
            f" streams a core; measured to fit: {inputs.streams_per_core}."
        ),
        "",
        "On cores: cores = speakers / (`streams_per_core` * `share`), in whole machines.",
        "",
        *table(
            ["speakers", "cores", "machines", "$ an hour", "$ a month", "$ a speaker and hour"], cpu
        ),
        "",
        "On GPUs: GPUs = speakers / (`gpu_streams` * `share`).",
        "",
        *table(["speakers", "GPUs", "$ an hour"], gpu),
        "",
        "On the network, headers and TLS included; the totals are of the larger direction:",
        "",
        *table(
            [
                "format",
                "B/s to the server",
                "B/s back",
                *(f"{speakers:,} speakers" for speakers in SPEAKERS),
            ],
            net,
        ),
        "",
        (
            f"A machine of {inputs.cores_per_machine} cores carries {node:.0f} streams:"
            f" {human(8 * node * max(each['PCM s16']))} of PCM,"
            f" {human(8 * node * max(each['Opus']))} of Opus; inside the cluster, saving sessions"
            f" takes {saved} a stream,"
            f" {human(node * 8 * inputs.saved_bytes * inputs.saves_per_second)} a machine."
        ),
    ]
    return "\n".join(lines) + "\n"


def written(text: str, tables: str) -> str:
    """A document with the part between the two marks replaced.

    Raises:
        ValueError: it has no such marks.
    """
    before, old, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not old or not ended:
        raise ValueError(f"the document lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{tables}{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="From streams per core to machines, money and network."
    )
    parser.add_argument(
        "--write", type=Path, help="a document to put the tables into, between its marks"
    )
    for name in ("streams_per_core", "gpu_streams", "cores_per_machine"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="see Inputs")
    for name in ("share", "dollars_per_core_hour", "dollars_per_gpu_hour"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, help="see Inputs")
    given = vars(parser.parse_args(arguments))
    path: Path | None = given.pop("write")
    page = report(Inputs(**{name: value for name, value in given.items() if value is not None}))
    if path is None:
        sys.stdout.write(page)
    else:
        write(path, written(path.read_text("utf-8"), page))


if __name__ == "__main__":
    main()
