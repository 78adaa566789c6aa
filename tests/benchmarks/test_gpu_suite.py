"""The GPU suite without a GPU: a dry run from end to end on a bare tree, kills, hangs and failures,
and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.benchmarks import gpu_suite
from rtvc.benchmarks.gpu import parts as gpu_parts
from rtvc.benchmarks.gpu import stubs as bare
from rtvc.benchmarks.gpu.parts import parts
from rtvc.benchmarks.gpu.record import Record, source
from rtvc.benchmarks.gpu.table import table
from rtvc.benchmarks.gpu.timing import Unavailable
from rtvc.benchmarks.gpu_suite import main, watch
from rtvc.benchmarks.kernel.run import STEMS

ROOT = Path(__file__).resolve().parents[2]
MISSING = (
    "pydantic",
    "safetensors",
    "rich",
    "typer",
    "soundfile",
    "soxr",
    "onnxruntime",
    "numba",
    "scipy",
    "tqdm",
)
BLOCK = f"""
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {MISSING!r} else found(name, package)
)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four folders elsewhere, in Python without anything that a bare machine lacks."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("rtvc", "kernels", "engine", "benchmarks"):
        for path in sorted((ROOT / name).rglob("*.py")) + sorted((ROOT / name).rglob("*.cu")):
            if not any(parent.is_symlink() for parent in path.parents):
                (tree / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                (tree / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    for name in ("kernels", "engine", "benchmarks"):
        (tree / "rtvc" / name).symlink_to(Path("..") / name)
    (tree / "bare").mkdir()
    (tree / "bare" / "sitecustomize.py").write_text(BLOCK)
    return tree


def environment(tree: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return kept | {"PYTHONPATH": str(tree / "bare"), "OMP_NUM_THREADS": "1"}


def test_a_dry_run_on_a_bare_tree_runs_every_part(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "dry.json"
    command = [sys.executable, "benchmarks/gpu_suite.py", "--dry-run", "-o", str(out)]
    done = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert (
        found["dry_run"] is True
        and found["gpu"] is None
        and found["stand_ins"] == ["pydantic", "safetensors"]
    )
    assert list(found["parts"]) == [part.name for part in parts()]
    for name, part in found["parts"].items():
        wanted = "unavailable" if "tensorrt" in name or name == "power" else "done"
        assert part["status"] == wanted and part.get("device", "cpu") == "cpu", (name, part)
    for stem in STEMS:
        rows = found["parts"][f"correctness/{stem}"]["result"]["rows"]
        assert rows and all(row["triton"]["right"] and row["operator"]["right"] for row in rows), (
            "the interpreter ran the kernel"
        )
        assert all(
            found["parts"][f"kernels/{stem}/{size}"]["result"] for size in ("streaming", "large")
        )
    assert "device_us" not in out.read_text() and "graph_p50_ms" not in out.read_text(), (
        "a CPU gives no figure of a GPU"
    )
    assert [row["batch"] for row in found["parts"]["step/fused"]["result"]] == [1, 3]
    assert found["parts"]["streams/cudagraph-kernels"]["result"]["rows"][-1]["streams"] == 2
    page = table(found)
    assert (
        "no figure here says anything of a GPU" in page
        and "Goals" not in page
        and "Correct: 6 of 6" in page
    )
    # Again: nothing is left to do.
    before = found["parts"]
    done = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=60
    )
    kept = {
        name: part
        for name, part in json.loads(out.read_text())["parts"].items()
        if part["status"] == "done"
    }
    assert done.returncode == 0 and kept == {
        name: part for name, part in before.items() if part["status"] == "done"
    }


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False


def test_killed_it_goes_on_where_it_was_and_leaves_no_process(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed.json"
    command = [
        sys.executable,
        "benchmarks/gpu_suite.py",
        "--dry-run",
        "-o",
        str(out),
        "--only",
        "device",
        "correctness/adain",
        "correctness/istft",
        "correctness/source",
    ]
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment(tree),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    first: dict[str, Any] = {}
    until = time.monotonic() + 240
    while not first and time.monotonic() < until:
        time.sleep(0.02)
        first = {
            n: p
            for n, p in (json.loads(out.read_text())["parts"] if out.is_file() else {}).items()
            if p["status"] == "done"
        }
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first and len(children) == 1
    until = time.monotonic() + 60
    while alive(int(children[0])) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(int(children[0])), "the working process dies with the one that watches it"
    first = {n: p for n, p in json.loads(out.read_text())["parts"].items() if p["status"] == "done"}
    subprocess.run(
        command, cwd=tree, env=environment(tree), check=True, capture_output=True, timeout=120
    )
    second = json.loads(out.read_text())["parts"]
    assert len(first) < len(second) == 4 and all(
        part["status"] == "done" for part in second.values()
    )
    assert {name: second[name] for name in first} == first, "what was finished was not run again"


WORKER = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from rtvc.benchmarks.gpu.record import Record
record = Record(Path({path!r}), {{}})
record.begin("first")
record.end("first", "done", result=1)
record.begin("second")
{then}
"""


@pytest.mark.parametrize(
    ("then", "error"), [("os._exit(9)", "ended with status 9"), ("time.sleep(60)", "took too long")]
)
def test_a_part_that_dies_or_hangs_is_recorded(then: str, error: str, tmp_path: Path) -> None:
    record = Record(tmp_path / "out.json", {})
    code = WORKER.format(root=str(ROOT), path=str(record.path), then=then)
    assert (
        watch([sys.executable, "-c", code], record, time.time() + 60, dict(os.environ), longest=1.0)
        != 0
    )
    assert record.parts["first"]["status"] == "done"
    assert record.parts["second"]["status"] == "failed" and error in record.parts["second"]["error"]


def test_a_failing_part_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = []

    def broken(bench: Any) -> None:
        tried.append("broken")
        raise RuntimeError("no such instruction")

    def absent(bench: Any) -> None:
        raise Unavailable("not here")

    def fine(bench: Any) -> int:
        tried.append("fine")
        return 7

    made = [
        gpu_parts.Part(name, 1e6, run) for name, run in (("a", broken), ("b", absent), ("c", fine))
    ]
    monkeypatch.setattr(gpu_parts, "parts", lambda: made)
    record = Record(tmp_path / "out.json", {})
    assert gpu_parts.work(record, time.time() + 60, dry=True) == 0
    assert {name: part["status"] for name, part in record.parts.items()} == {
        "a": "failed",
        "b": "unavailable",
        "c": "done",
    }
    assert "no such instruction" in record.parts["a"]["error"] and record.parts["c"]["result"] == 7
    gpu_parts.work(Record(record.path, {}), time.time() + 60, dry=True)
    assert tried == ["broken", "fine", "broken"], "what failed is tried again, what is done is not"
    late = Record(tmp_path / "late.json", {})
    gpu_parts.work(late, time.time() - 1, dry=True)
    assert {part["status"] for part in late.parts.values()} == {"skipped"} and tried[3:] == []


def test_without_a_gpu_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        monkeypatch.setattr(gpu_suite, "gpu_name", lambda: None)
    out = tmp_path / "out.json"
    assert main(["-o", str(out)]) == 2 and not out.exists()
    assert "--dry-run" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_parts.work(Record(out, {}), time.time() + 60, dry=False) == 1 and not out.exists()
    out.write_text(json.dumps({"kind": "gpu-suite", "dry_run": False}, indent=1))
    assert main(["--dry-run", "-o", str(out)]) == 2
    assert (
        "does not replace" in capsys.readouterr().err
        and json.loads(out.read_text())["dry_run"] is False
    )


def test_results_of_other_code_are_begun_anew_unless_kept(tmp_path: Path) -> None:
    record = Record(tmp_path / "out.json", {"source": "a"})
    record.begin("x")
    record.end("x", "done")
    assert Record(record.path, {"source": "a"}).finished("x")
    assert not Record(record.path, {"source": "b"}).parts
    assert Record(record.path, {"source": "b"}, keep=True).finished("x")
    (tmp_path / "kernels").mkdir()
    before = source(tmp_path)
    (tmp_path / "kernels" / "new.cu").write_text("1")
    assert source(tmp_path) != before


def test_the_table_weighs_measurements_against_the_goals() -> None:
    def done(result: Any) -> dict[str, Any]:
        return {"status": "done", "result": result}

    timed = {"kernel": "adain", "dtype": "float32", "operator": {}, "eager": {"device_us": 90.0}}
    large = {
        **timed,
        "size": "large",
        "case": "L",
        "triton": {"device_us": 10.0, "share_of_floor": 0.85},
        "compile": {"device_us": 12.0},
    }
    small = {
        **timed,
        "size": "streaming",
        "case": "S",
        "triton": {"device_us": 3.0, "share_of_floor": 0.1},
        "compile": {"device_us": 4.0},
    }
    rows = [
        {"streams": 512, "tick_p99_ms": 9.0, "fits": True},
        {"streams": 1024, "tick_p99_ms": 30.0, "fits": False},
    ]
    found = {
        "dry_run": False,
        "gpu": "NVIDIA Test",
        "parts": {
            "kernels/adain/large": done([large]),
            "kernels/adain/streaming": done([small]),
            "step/fused": done([{"batch": 1, "p50_ms": 4.0, "graph_p50_ms": 0.9}]),
            "streams/cudagraph": done({"sustained": 512, "by_steps": 1024, "rows": rows}),
            "correctness/adain": done({"right": False}),
            "power": {"status": "failed", "error": "no answer"},
        },
    }
    page = table(found)
    assert (
        "reached: adain L float32, 85% of the copy's speed" in page
        and "missed: adain S float32, 0.75 of torch.compile's time" in page
    )
    assert "reached: 0.90 ms a step at batch 1" in page and "missed: 512 concurrent streams" in page
    assert "wrong: adain" in page and "power: failed, no answer" in page


def test_shipped_weights_load_from_the_tree_and_stand_ins_only_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, what = bare.shipped()
    assert (
        what == "stream.safetensors"
        and model(
            torch.zeros(1, 1, 600), model.condition(*torch.zeros(2, 1, 128)), model.initial(1)
        )[0].shape[-1]
        == 600
    )
    assert bare.furnish() == [], "both are installed here"

    class Sizes(bare.Settings):
        width: int = 3
        steps: tuple[int, ...] = (1, 2)

    made = Sizes(steps=[4])
    assert (made.width, made.steps) == (3, (4,))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"settings .*'steps', 'width'.*: 'depth'"):
        Sizes(depth=1)
    monkeypatch.setattr(bare, "missing", lambda package: True)
    assert "random" in bare.shipped()[1]
