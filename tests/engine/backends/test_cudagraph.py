"""CUDA graphs on a machine without a GPU: everything but the capture itself, which direct calls
stand in for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rtvc.engine.backends.cudagraph import CudaGraphBackend
from rtvc.engine.backends.double_buffer import capture, direct
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.build import build
from rtvc.engine.cached import load, open_backend
from rtvc.engine.graph.gpu import Gpu, gpu, need_gpu, placed
from rtvc.engine.graph.target import Target
from rtvc.engine.streams.session import Session
from rtvc.errors import ConfigError, EngineError
from rtvc.layers.dispatch import Dispatched
from rtvc.models.streaming import StreamingConfig, StreamingConverter
from tests.support.converters import TestVoice, TinyConverter

CHUNK = 600


@pytest.fixture(scope="module")
def converter() -> Any:
    return TinyConverter().eval()


def rehearsed(start: Callable[[], None]) -> Callable[[], None]:
    """What `capture` does to the buffers: the work runs a few times before anybody asks for it."""
    for _ in range(4):
        start()
    return start


def test_a_stream_never_moves_its_state(converter: Any) -> None:
    """Five chunks through two buffers that take turns equal torch eager, from any state that is put
    in."""
    backend, eager = (
        CudaGraphBackend(converter, CHUNK, device="cpu", record=rehearsed),
        TorchBackend(converter, CHUNK),
    )
    voice = torch.cat([eager.condition(TestVoice(0)), eager.condition(TestVoice(1))])
    stream, state = backend.stream(2), eager.initial(2)
    torch.testing.assert_close(stream.state, state)  # the rehearsal left no traces
    places = []
    for index in range(5):
        x = torch.randn(2, 1, CHUNK)
        wanted, state = eager.step(x, voice, state)
        torch.testing.assert_close(stream(x, voice), wanted)
        torch.testing.assert_close(stream.state, state)
        places.append(stream.state.data_ptr())
        if index == 2:
            stream.put(state[:1])
            state = state[:1].repeat(2, 1)
    assert len(set(places)) == 2 and places[0] == places[2] == places[4] != places[1] == places[3]
    with pytest.raises(EngineError, match=r"expected x \(2, 1, 600\) .*, got \(1, 1, 600\)"):
        stream(torch.zeros(1, 1, CHUNK), voice)


def test_steps_keep_no_hold_on_what_they_were_given(converter: Any) -> None:
    """Two sessions share a backend, and results stay what they were while later steps reuse the
    buffers."""
    backend, eager = (
        CudaGraphBackend(converter, CHUNK, device="cpu", record=direct),
        TorchBackend(converter, CHUNK),
    )
    assert backend.batches == tuple(1 << k for k in range(9))
    sessions = [[Session(one, TestVoice(index)) for index in range(2)] for one in (backend, eager)]
    for _ in range(4):
        blocks = (0.2 * torch.randn(2, CHUNK)).numpy()  # within full scale, as blocks must be
        got, wanted = (
            [session.push(block) for session, block in zip(pair, blocks, strict=True)]
            for pair in sessions
        )
        for mine, theirs in zip(got, wanted, strict=True):
            torch.testing.assert_close(torch.from_numpy(mine), torch.from_numpy(theirs))
    x, voice, state = (
        torch.randn(3, 1, CHUNK),
        eager.condition(TestVoice(2)).repeat(3, 1),
        torch.randn(3, eager.layout.size),
    )
    before = state.clone()
    y, after = backend.step(x, voice, state)
    kept = y.clone(), after.clone()
    for _ in range(3):
        backend.step(torch.randn_like(x), voice, after)
    assert torch.equal(state, before) and torch.equal(y, kept[0]) and torch.equal(after, kept[1])


def test_a_capture_rehearses_aside_and_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what torch is asked: wait, three rounds on another stream, wait, one
    recording."""
    said: list[str] = []

    class Stream:
        """One that only says what it waits for."""

        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            said.append(f"{self.name} waits for {other.name}")

    class Graph:
        """One that says that it is replayed."""

        def replay(self) -> None:
            said.append("replay")

    @contextmanager
    def within(what: Any) -> Iterator[None]:
        said.append("on side" if isinstance(what, Stream) else "record")
        yield
        said.append("off")

    for name, stand_in in {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "stream": within,
        "graph": within,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("main"))
    replay = capture(lambda: said.append("work"))
    wanted = [
        "side waits for main",
        "on side",
        *["work"] * 3,
        "off",
        "main waits for side",
        "record",
        "work",
        "off",
    ]
    assert said == wanted
    replay()
    assert said == [*wanted, "replay"]


def test_the_gpu_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in {
        "is_available": True,
        "get_device_name": "NVIDIA H100",
        "get_device_capability": (9, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda found=found: found)
    assert gpu() == need_gpu("a step") == Gpu("NVIDIA H100", "9.0")
    layer = torch.nn.Linear(2, 2)
    assert placed(layer, torch.device("cpu")) is layer
    moved = placed(layer, torch.device("meta"))
    assert moved.weight.device.type == "meta" and layer.weight.device.type == "cpu"


def test_only_the_last_used_numbers_of_rows_are_kept(converter: Any) -> None:
    backend = CudaGraphBackend(converter, CHUNK, device="cpu", record=direct)
    backend.lanes.most = 2
    first = backend.lanes.lane(1)
    assert backend.lanes.lane(2) is not first and backend.lanes.lane(1) is first
    backend.lanes.lane(3)
    assert list(backend.lanes.kept) == [1, 3]


def test_our_kernels_can_be_switched_off() -> None:
    config = StreamingConfig(
        content_dilations=(1,), pitch_dilations=(1,), decoder_hidden=16, decoder_dilations=(2,)
    )
    model = StreamingConverter(config).eval()
    for kernels, implementation in ((True, "auto"), (False, "reference")):
        module = placed(model, torch.device("meta"), kernels)
        layers = [layer for layer in module.modules() if isinstance(layer, Dispatched)]
        assert {layer.implementation for layer in layers} == {implementation}
        assert model.decoder.source.implementation == "auto", "the caller's model stays as it is"


def test_without_a_gpu_it_refuses(converter: Any, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    for attempt in (
        lambda: CudaGraphBackend(converter, CHUNK),
        lambda: open_backend(converter, "cudagraph", CHUNK, tmp_path),
        lambda: build(converter, "cudagraph", tmp_path / "engine", CHUNK),
    ):
        with pytest.raises(
            EngineError, match=r"the cudagraph backend needs an NVIDIA GPU, and torch .* sees none"
        ):
            attempt()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="steps as torch does, in fp32"):
        build(converter, "cudagraph", tmp_path / "engine", CHUNK, target=Target(precision="fp16"))


def test_the_manifest_holds_it_to_its_gpu(
    converter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built as on one GPU, loaded as on another."""
    here = Gpu("NVIDIA H100", "9.0")
    for module in ("registry", "cached", "tensorrt.flavours", "backends.cudagraph"):
        monkeypatch.setattr(f"rtvc.engine.{module}.need_gpu", lambda what: here)
    real = CudaGraphBackend.__init__
    monkeypatch.setattr(
        CudaGraphBackend,
        "__init__",
        lambda *arguments: real(*arguments, device="cpu", record=direct),
    )
    manifest = build(converter, "cudagraph", tmp_path / "engine", CHUNK)
    assert (
        manifest.target
        == Target(flavour="cuda", batch=(1, 16, 1024), kernels=True, capabilities=("9.0",))
        and manifest.files == {}
    )
    loaded = load(tmp_path / "engine", converter)
    assert isinstance(loaded, CudaGraphBackend) and loaded.batches[-1] == 1024
    here = Gpu("NVIDIA A100", "8.0")
    with pytest.raises(
        EngineError,
        match=(
            r"made for GPUs of compute capability 9\.0, here is NVIDIA A100 \(8\.0\): build it"
            r" again"
        ),
    ):
        load(tmp_path / "engine", converter)
