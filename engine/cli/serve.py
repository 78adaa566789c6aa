"""`rtvc serve`: a server for many speakers."""

import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import rtvc
from rtvc.cli.targets import EngineName, Lookahead, StepMs, Weights

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["serve"]


def serve(
    host: Annotated[
        str, typer.Option(help="address to listen on; others than this machine's own need a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8765,
    voices: Annotated[
        Path | None,
        typer.Option(help="folder of voice files, and for uploads; default: a temporary one"),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="file with the token that clients must send")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="certificate chain, PEM: serves https and wss")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its private key, PEM")] = None,
    max_sessions: Annotated[
        int,
        typer.Option(
            help="sessions at once; this machine's measured capacity may allow fewer", min=1
        ),
    ] = 32,
    measure: Annotated[
        bool,
        typer.Option(
            help="measure how many sessions this machine holds; otherwise trust --max-sessions"
        ),
    ] = True,
    backend: EngineName = "auto",
    chunk: StepMs = None,
    model: Weights = None,
    lookahead: Lookahead = None,
    origins: Annotated[
        list[str] | None,
        typer.Option("--origin", help="another page that may connect: https://HOST[:PORT]"),
    ] = None,
    allow_no_origin: Annotated[
        bool,
        typer.Option("--allow-no-origin", help="with a token: also programs that send no Origin"),
    ] = False,
    proxies: Annotated[
        list[str] | None,
        typer.Option("--proxy", help="address of a proxy in front, whose X-Forwarded-For counts"),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="let everybody in who reaches the address, without a token"
        ),
    ] = False,
    fit: Annotated[
        int,
        typer.Option(
            help="steps of fitting uploaded voices: more alike, less natural; 60 take 4 s a core",
            min=0,
        ),
    ] = 0,
    page: Annotated[bool, typer.Option(help="serve the browser page")] = True,
    webrtc: Annotated[
        bool, typer.Option("--webrtc", help="take calls, too: Opus over UDP, for bad networks")
    ] = False,
    drain: Annotated[
        float, typer.Option(help="seconds that sessions are given to end on SIGTERM", min=0)
    ] = 30.0,
    idle: Annotated[
        float,
        typer.Option(
            help="seconds without a word, or in a session without audio, after which it ends", min=1
        ),
    ] = 60.0,
    share: Annotated[
        int | None,
        typer.Option(
            help="sessions of one address; default: half of them, for this machine's own all", min=1
        ),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="replicas on a Ray cluster behind one door; --voices is a shared folder"
        ),
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(help="with --ray: a running cluster (`auto`); default: one on this machine"),
    ] = None,
    replicas: Annotated[
        str, typer.Option(help="with --ray: N, or LEAST:MOST to follow the streams")
    ] = "2",
    cores: Annotated[
        float, typer.Option(help="with --ray: of the CPU for each replica", min=0)
    ] = 1.0,
    gpus: Annotated[
        float, typer.Option(help="with --ray: GPUs for each replica, or a share of one", min=0)
    ] = 0.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="log sessions as they come and go")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="say the address and what fits as a line of JSON")
    ] = False,
) -> None:
    """Serve conversions over websockets, with a browser page, health and metrics on the same port.

    Example: rtvc serve --voices voices/ --token-file token.txt --host 0.0.0.0 --tls-cert cert.pem
    --tls-key key.pem
    """
    import asyncio
    import tempfile

    from rtvc.engine.admission.access import check_binding, read_token
    from rtvc.engine.admission.entrance import reserve
    from rtvc.engine.admission.limits import ServerLimits
    from rtvc.engine.open import check_engine
    from rtvc.engine.server.app import run, secure
    from rtvc.engine.server.open import ServeConfig, open_service
    from rtvc.engine.webrtc.door import check_webrtc
    from rtvc.errors import ConfigError
    from rtvc.files import check_folder, kind

    token = read_token(token_file) if token_file else None
    check_binding(host, token, insecure)
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together, one of them came alone")
    tls = secure(tls_cert, tls_key) if tls_cert and tls_key else None
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    if ray and proxies:
        raise ConfigError("--proxy came with --ray, whose door is the proxy: leave it out")
    if ray and webrtc:
        raise ConfigError("--webrtc came with --ray, whose door lets no UDP through: leave one out")
    if webrtc:
        check_webrtc()
    if ray and not voices:
        raise ConfigError(
            "--ray came without --voices: give a folder that every machine of the cluster sees"
        )
    sys.setswitchinterval(
        0.001
    )  # the loop and the model share one interpreter: neither should wait long for the other
    with ExitStack() as stack:
        reserved = stack.enter_context(reserve(host, port))
        if not ray:
            check_engine(backend)
        if (
            voices and kind(voices) != "folder"
        ):  # one that is there may be read-only: no uploads then
            check_folder(voices)
        folder = voices or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="rtvc-voices-"))
        )
        config = ServeConfig(
            fit=fit,
            proxies=addresses(proxies or []),
            voices=folder,
            model=model,
            lookahead=lookahead,
            backend=backend,
            chunk_ms=chunk,
            measure=measure,
            host=host,
            token=token,
            origins=origins or [],
            allow_no_origin=allow_no_origin,
            limits=ServerLimits(
                sessions=max_sessions,
                sessions_per_address=share,
                drain_s=drain,
                idle_s=idle,
                silent_s=idle,
            ),
        )
        if ray:
            from rtvc.engine.fleet.config import parse_replicas
            from rtvc.engine.fleet.run import run_fleet

            reserved.close()  # the door is a process of its own
            fleet = {
                "cores": cores,
                "gpus": gpus,
                "page": page_folder() if page else None,
                **parse_replicas(replicas),
            }
            run_fleet(
                config,
                fleet,
                host,
                port,
                address=ray_address,
                tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
                as_json=as_json,
            )
            return
        service = open_service(config)

        def ready(url: str) -> None:
            tick = f"{1000 * service.pool.tick_s:g} ms steps"
            typer.echo(
                f"{service.pool.backend.name}, {tick}, up to {service.most} sessions,"
                f" {len(service.store.names())} voices",
                err=True,
            )
            if as_json:
                figures = {
                    "url": url,
                    "backend": service.pool.backend.name,
                    "step_ms": round(1000 * service.pool.tick_s, 3),
                    "sessions": service.most,
                    "voices": len(service.store.names()),
                }
                typer.echo(json.dumps(figures))
            else:
                typer.echo(f"listening on {url}")
            sys.stdout.flush()

        files = page_folder() if page else None
        serving = run(
            service, host, port, page=files, tls=tls, ready=ready, reserved=reserved, webrtc=webrtc
        )
        asyncio.run(serving)


def addresses(given: list[str]) -> "list[IPv4Address | IPv6Address]":
    """Numeric addresses.

    Raises:
        ConfigError: one is none.
    """
    from ipaddress import ip_address

    from rtvc.errors import ConfigError

    try:
        return [ip_address(address) for address in given]
    except ValueError as error:
        raise ConfigError(f"expected --proxy with a number like 10.0.0.7: {error}") from error


def page_folder() -> Path | None:
    """The folder of the browser page, if this installation holds it."""
    folder = (
        Path(rtvc.__file__).parent / "clients" / "web"
    )  # files, not code: nothing of the clients is imported
    return folder if (folder / "index.html").is_file() else None
