"""The wheel as strangers get it: installed into empty environments and used there.

`make wheel-test` builds it and runs this; minutes for each Python, most of them for torch.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
WHEEL = Path(os.environ.get("RTVC_WHEEL", ""))
LARGEST = 40_000_000
"""Bytes of a distribution."""
PYTHONS = os.environ.get("PYTHONS", "3.11 3.12 3.13").split()

pytestmark = pytest.mark.skipif(
    "RTVC_WHEEL" not in os.environ, reason="installs torch into empty environments: make wheel-test"
)

IMPORT_ALL = """
import importlib, json, sys
from pathlib import Path
import rtvc
root, missing, count = Path(rtvc.__file__).parent, {}, 0
for path in sorted(root.rglob("*.py")):
    name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
        count += 1
    except ModuleNotFoundError as error:
        missing[name] = error.name
print(json.dumps({"count": count, "missing": missing}))
"""


def interpreter(version: str) -> str | None:
    """A Python of a version such as 3.12: on the path, of pyenv, or of uv."""
    candidates = [shutil.which(f"python{version}")]
    installed = Path.home() / ".pyenv" / "versions"
    candidates += [str(found) for found in sorted(installed.glob(f"{version}.*/bin/python"))]
    if uv := shutil.which("uv"):
        done = subprocess.run([uv, "python", "find", version], capture_output=True, text=True)
        candidates += [done.stdout.strip()]
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    for found in filter(None, candidates):
        done = subprocess.run([found, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return found
    return None


class Environment:
    """An environment that holds the wheel and what it asks for, and the folder to work in."""

    def __init__(self, python: str, folder: Path) -> None:
        self.bin, self.folder = folder / "env" / "bin", folder / "work"
        self.folder.mkdir()
        hidden = ("PYTHON", "VIRTUAL_ENV", "PYTEST", "PYENV")
        self.variables = {
            name: value for name, value in os.environ.items() if not name.startswith(hidden)
        } | {"PATH": f"{self.bin}:/usr/bin:/bin", "RTVC_CACHE": str(folder / "cache")}
        subprocess.run([python, "-m", "venv", folder / "env"], check=True)

    def run(self, *words: object, seconds: float = 600, codes: tuple[int, ...] = (0,)) -> str:
        """What a program of the environment says; it must end with one of these exit codes."""
        done = subprocess.run(
            [str(self.bin / str(words[0])), *map(str, words[1:])],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode in codes, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def told(self, *words: object) -> Any:
        """What `rtvc … --json` says."""
        return json.loads(self.run("rtvc", *words, "--json"))


@pytest.fixture(scope="module", params=PYTHONS)
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """Plain `pip install` of the wheel; no index but the configured one."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} here: install it, or `uv python install`")
    folder = tmp_path_factory.mktemp(f"python{request.param}")
    environment, began = Environment(python, folder), perf_counter()
    environment.run(
        *("python", "-m", "pip", "install", "--quiet", f"{WHEEL}[serve,formats]"), seconds=3600
    )
    size = sum(path.stat().st_size for path in (folder / "env").rglob("*") if path.is_file())
    torch = environment.run("python", "-c", "import torch; print(torch.__version__)").strip()
    print(
        f"\nPython {request.param}: torch {torch}, {size / 1e9:.1f} GB installed in"
        f" {perf_counter() - began:.0f} s"
    )
    yield environment
    shutil.rmtree(folder)


def test_the_distributions_are_small_and_hold_their_licences() -> None:
    (sdist,) = WHEEL.parent.glob("rtvc_engine-*.tar.gz")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert WHEEL.name == f"rtvc_engine-{version}-py3-none-any.whl"
    assert sdist.name == f"rtvc_engine-{version}.tar.gz"
    for path in (WHEEL, sdist):
        print(f"\n{path.name}: {path.stat().st_size / 1e6:.1f} MB", end="")
        assert path.stat().st_size <= LARGEST
    inside = zipfile.ZipFile(WHEEL)
    for name in ("LICENSE", "NOTICE"):
        held = inside.read(f"rtvc_engine-{version}.dist-info/licenses/{name}")
        assert held == (ROOT / name).read_bytes()
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"LICENSE", "NOTICE", "CHANGELOG.md", "README.md", "setup.py"} <= names
    assert {"rtvc/converter.py", "engine/open.py", "clients/web/index.html"} <= names


def test_nothing_unprefixed_reaches_site_packages_and_pip_is_content(
    installed: Environment,
) -> None:
    code = "from importlib.metadata import files; print(*files('rtvc-engine'), sep='\\n')"
    tops = {name.split("/")[0] for name in installed.run("python", "-c", code).split()}
    tops = {re.sub(r"-[\d.]+\.dist-info", ".dist-info", top) for top in tops - {".."}}
    assert tops == {"rtvc", "rtvc_engine.dist-info"}
    assert installed.run("python", "-m", "pip", "check") == "No broken requirements found.\n"


def test_every_module_is_imported_or_names_a_package_of_an_extra(installed: Environment) -> None:
    told = json.loads(installed.run("python", "-c", IMPORT_ALL))
    assert told["count"] > 200
    strange = {name: lack for name, lack in told["missing"].items() if lack.startswith("rtvc")}
    assert not strange and not {"torch", "numpy", "soundfile", "websockets"} & {
        *told["missing"].values()
    }
    print(f"\n{told['count']} modules imported, of extras: {told['missing']}", end="")


def test_the_version_names_the_commit(installed: Environment) -> None:
    said = installed.run("rtvc", "--version").strip()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.fullmatch(re.escape(version) + r" \([0-9a-f]{12}(-dirty)?\)", said)


def test_a_recording_is_converted_and_a_voice_made(installed: Environment) -> None:
    import soundfile

    source, reference = (ROOT / "examples" / f"{name}.flac" for name in ("source", "reference"))
    made = installed.told("voice", "create", reference, "-o", "anna.voice", "--fit", "2")
    assert made["name"] == "anna" and made["bytes"] < 65_536
    said = installed.told("convert", source, "-r", "anna.voice", "-o", "said.wav")
    wave, rate = soundfile.read(installed.folder / "said.wav")
    assert rate == 24_000 and len(wave) == round(said["duration_s"] * rate) and wave.std() > 0.01


def test_the_machine_is_examined_and_help_is_given(installed: Environment) -> None:
    said = installed.run("rtvc", "doctor", "--no-speed", "--json", codes=(0, 1))  # 1: no devices
    assert json.loads(said)["packages"]["torch"]
    assert "--more" in installed.run("rtvc", "evaluate", "--help")


def test_a_server_and_its_client(installed: Environment) -> None:
    import soundfile

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--backend", "torch-eager", "--no-measure", "--max-sessions", "2"]
    server = subprocess.Popen(
        [str(installed.bin / "rtvc"), "serve", "--port", str(port), *options],
        cwd=installed.folder,
        env=installed.variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout and server.stdout.readline().startswith("listening on")
        source, reference = (ROOT / "examples" / f"{name}.flac" for name in ("source", "reference"))
        url = f"ws://127.0.0.1:{port}"
        installed.run(
            *("rtvc", "stream", source, "-r", reference, "-o", "streamed.wav", "--url", url),
            "--fast",
        )
    finally:
        server.terminate()
        assert server.wait(60) == 0
    wave, rate = soundfile.read(installed.folder / "streamed.wav")
    whole = soundfile.info(ROOT / "examples" / "source.flac")
    assert abs(len(wave) / rate - whole.frames / whole.samplerate) < 0.01 and wave.std() > 0.01
