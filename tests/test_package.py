"""What is installed, what may import what, and promises about the code that can be read off it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPPED = ("kernels", "engine", "clients", "benchmarks")
LONGEST = 350
ROOM = 15

UNPICKLERS = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "joblib.load",
    "dill.load",
    "pandas.read_pickle",
}
SHIPPED = (".py", ".safetensors", ".toml", ".html", ".js", ".css", ".cu", ".voice", ".typed")
"""Ends of the names of files that must be installed."""
FORBIDDEN = {
    "kernels": ("rtvc.",),
    "rtvc": ("rtvc.engine", "rtvc.clients", "rtvc.benchmarks"),
    "engine": ("rtvc.clients", "rtvc.benchmarks"),
    "clients": ("rtvc.benchmarks",),
    "benchmarks": (),
}
"""What the files of each folder must not import; kernels may import each other."""


def sources(folder: str) -> list[Path]:
    """Every Python file of one of the five folders, links not followed."""
    return sorted(
        Path(parent) / name
        for parent, folders, names in os.walk(ROOT / folder)
        for name in names
        if name.endswith(".py") and "__pycache__" not in parent
    )


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is made of: building leaves nothing in the checkout, and editing
    does not disturb the build."""
    copy = tmp_path_factory.mktemp("source") / "rtvc"
    copy.mkdir()
    for name in ("rtvc", *MAPPED):
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(copy),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("rtvc_engine-*.whl"))


def test_the_wheel_holds_everything_under_one_name(copy: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "rtvc" in tops and any(top.endswith(".dist-info") for top in tops), (
        f"{tops} reach site-packages"
    )
    for top in ("rtvc", *MAPPED):
        files = [
            Path(parent, name)
            for parent, _, inner in os.walk(copy / top)
            for name in inner
            if name.endswith(SHIPPED)
        ]
        wanted = {path.relative_to(copy).as_posix() for path in files}
        missing = {name if top == "rtvc" else f"rtvc/{name}" for name in wanted} - set(names)
        assert not missing, f"{missing} are missing from the wheel"
    assert len(names) == len(set(names)) and not any("__pycache__" in name for name in names)
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in names}


def test_the_wheel_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import rtvc, rtvc.engine.streams.resampler, rtvc.cli; print(rtvc.__file__,"
        " rtvc.engine.streams.resampler.__file__)"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "PYTHONPATH": str(tmp_path)
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(tmp_path / "rtvc" / "__init__.py"),
        str(tmp_path / "rtvc" / "engine" / "streams" / "resampler.py"),
    ]


@pytest.mark.parametrize("folder", MAPPED)
def test_the_mapped_folders_cannot_shadow_a_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()
    link = ROOT / "rtvc" / folder
    assert link.is_symlink() and os.readlink(link) == f"../{folder}"


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_downwards(folder: str) -> None:
    """Every import of every file, those inside functions included; `VoiceConverter.stream` alone
    may open an engine."""
    for path in sources(folder):
        upward = {
            name
            for name in imports(path)
            if name.startswith(FORBIDDEN[folder]) and not name.startswith(f"rtvc.{folder}")
        }
        where = path.relative_to(ROOT)
        if where == Path("rtvc/converter.py"):
            upward -= imports_of_stream(path)
        assert not upward, f"{where} imports {upward}"


def imports_of_stream(path: Path) -> set[str]:
    """What `VoiceConverter.stream` imports, and the file for type checkers alone."""
    tree = ast.parse(path.read_text())
    parts: list[ast.AST] = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    parts += [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "stream"
    ]
    assert len(parts) == 2
    return {
        n.module or "" for part in parts for n in ast.walk(part) if isinstance(n, ast.ImportFrom)
    }


def module_of(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "rtvc" else ("rtvc", *parts))
    return name.removesuffix(".__init__")


def imported_files(path: Path, known: set[str]) -> set[str]:
    """The modules of the package that a file imports anywhere: in functions and for type checkers,
    too. `from package import module` names the module."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            names |= inner or {node.module}
    return names & known


def circles(imports_of: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, however far around."""

    def reached(start: str) -> set[str]:
        seen, todo = set[str](), [start]
        while todo:
            new = imports_of[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reach = {module: reached(module) for module in imports_of}
    groups = {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in imports_of
        if module in reach[module]
    }
    return sorted(sorted(group) for group in groups)


def test_circles_are_noticed() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"], ["d"]]


def test_no_files_import_each_other() -> None:
    """However far around, and not for type checkers either; the one function that may open an
    engine is not counted."""
    paths = {module_of(path): path for folder in FORBIDDEN for path in sources(folder)}
    imports_of = {
        module: imported_files(path, set(paths)) - {module} for module, path in paths.items()
    }
    if "rtvc.converter" in imports_of:
        imports_of["rtvc.converter"] -= imports_of_stream(ROOT / "rtvc" / "converter.py")
    found = circles(imports_of)
    assert not found, "\n".join(" <-> ".join(circle) for circle in found)


def test_no_room_is_crowded() -> None:
    """A folder that holds more than so many files of code is a list, not a room."""
    rooms = Counter(
        path.parent.relative_to(ROOT)
        for folder in FORBIDDEN
        for path in sources(folder)
        if path.name != "__init__.py"
    )
    crowded = {str(room): count for room, count in rooms.items() if count > ROOM}
    assert not crowded


def test_nothing_is_unpickled_and_files_stay_readable() -> None:
    for path in (path for folder in FORBIDDEN for path in sources(folder)):
        text, where = path.read_text(), path.relative_to(ROOT)
        assert text.count("\n") <= LONGEST, f"{where} is longer than {LONGEST} lines"
        assert len(where.parts) <= 4, f"{where} lies too deep"
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            function = ast.unparse(call.func)
            assert function not in UNPICKLERS, f"{where} line {call.lineno} unpickles"
            if function == "torch.load":
                assert any(
                    k.arg == "weights_only" and ast.unparse(k.value) == "True"
                    for k in call.keywords
                ), f"{where} line {call.lineno}"


def test_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert project["name"] == "rtvc-engine" and project["license"] == "Apache-2.0"
    assert {"live", "serve", "gpu", "tensorrt", "rtx", "train", "eval", "test"} <= set(extras)
    for name in ("sounddevice", "pyaudio"):
        assert any(entry.startswith(name) for entry in extras["live"])
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    assert all(name in notice for name in ("Kokoro", "LibriSpeech", "CC BY 4.0", "hexgrad", "CC0"))


def test_reports_ask_for_what_the_machine_is() -> None:
    import yaml

    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text())
        asked = {part["id"]: part["attributes"]["label"] for part in form["body"]}
        assert "rtvc doctor --json" in asked["doctor"], path.name
    for text in ("CONTRIBUTING.md", "CHANGELOG.md"):
        assert (ROOT / text).read_text().count("\n") < 70, f"{text} is no longer a page"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {"ruff-check", "ruff-format"} <= {hook["id"] for hook in hooks}


def test_what_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:rtvc|engine|kernels|docs|tests)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).is_file() or "NAME" in path, path
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / target).is_file(), target


def test_the_examples_are_real_recordings_of_two_people() -> None:
    from rtvc.audio.recording import read

    credit = (ROOT / "examples" / "README.md").read_text()
    for name in ("source.flac", "reference.flac"):
        assert 4 * 24000 < len(read(ROOT / "examples" / name)) < 12 * 24000
        assert name in credit
    assert "CC BY 4.0" in credit and "Panayotov" in credit


def test_set_up_is_quick_when_nothing_changed(tmp_path: Path) -> None:
    """With its stamp in place the set-up script ends before it looks at anything else."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "setup", tmp_path / ".ci")
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    command = "cat .ci/setup pyproject.toml setup.py | sha256sum | cut -d' ' -f1"
    digest = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / ".venv" / ".ready-demo").write_text(f"{digest}-{tmp_path}-torch==2.13.0\n")
    done = subprocess.run(
        [".ci/setup", "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
