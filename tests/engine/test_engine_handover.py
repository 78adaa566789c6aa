"""A stream begins at once, and faster engines take it over without a seam."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from converters import DelayConverter, TestVoice, TinyConverter
from pooling import KeptPool

import rtvc.engine.open as opening
from rtvc.engine import builder
from rtvc.engine.auto import key, recall, remember, worthwhile
from rtvc.engine.backends.base import Backend, Layout
from rtvc.engine.backends.eager import TorchBackend
from rtvc.engine.build import build
from rtvc.engine.cached import load, place
from rtvc.engine.handover import Handover
from rtvc.engine.identity import answer, model_hash
from rtvc.engine.sent_model import packed, unpacked
from rtvc.engine.streams.capacity import Capacity
from rtvc.engine.streams.session import Session
from rtvc.engine.trial import fidelity, probe
from rtvc.errors import EngineError
from rtvc.models.streaming.dial import DialConfig, DialConverter
from rtvc.models.streaming.encoder import EncoderConfig
from rtvc.models.streaming.model import StreamingConfig, StreamingConverter
from rtvc.models.streaming.precise_pitch import exact

CHUNK = 600


@pytest.fixture(scope="module")
def converter() -> TinyConverter:
    return TinyConverter(width=160).eval()


@pytest.fixture(scope="module")
def engines(converter: TinyConverter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an engine of each of some backends."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("engines")
    build(converter, "onnx", folder / "onnx", CHUNK)
    build(converter, "onnx-int8", folder / "onnx-int8", CHUNK, folder / "onnx" / "step.onnx")
    return folder


def signal(chunks: int = 24) -> np.ndarray:  # type: ignore[type-arg]
    return probe(CHUNK, chunks).flatten().numpy()


def streamed(first: Backend, then: Backend | None, at: int) -> np.ndarray:  # type: ignore[type-arg]
    """What a session says that changes from one backend to the other after so many samples."""
    x, session = signal(), Session(first, TestVoice(1))
    begun = session.push(x[:at])
    first.successor = then
    rest = [session.push(x[at:]), session.flush()]
    first.successor = None
    assert then is None or session.backend is then
    return np.concatenate([begun, *rest])


@pytest.mark.parametrize(("name", "least"), [("onnx", 100.0), ("onnx-int8", 35.0)])
def test_a_session_that_changes_engines_equals_the_offline_result(
    converter: TinyConverter, engines: Path, name: str, least: float
) -> None:
    """35 dB is what seven-bit weights and eight-bit activations leave (see the engines' tests)."""
    eager = TorchBackend(converter, CHUNK)
    whole = streamed(eager, None, 0)
    changed = streamed(eager, load(engines / name, converter), at=7 * CHUNK + 123)
    assert len(changed) == len(signal()) and fidelity(changed, whole) > least
    before = 7 * CHUNK - converter.latency
    np.testing.assert_allclose(changed[:before], whole[:before], atol=1e-6)
    # Nothing is heard of the seam: there the error is no larger than elsewhere.
    error = np.abs(changed - whole)
    seam = slice(before - 8, before + 8)
    assert error[seam].max() <= error.max()
    assert np.abs(np.diff(error[seam])).max() <= 1.5 * np.abs(np.diff(error)).max() + 1e-7


def test_members_of_a_pool_change_together_and_keep_their_states(
    converter: TinyConverter, engines: Path
) -> None:
    eager, fast = TorchBackend(converter, CHUNK), load(engines / "onnx", converter)
    x, wanted = signal(), streamed(eager, None, 0)
    pool = KeptPool(eager, slots=3, capacity=Capacity(CHUNK / 24_000, {}, 3))
    members = [pool.join(TestVoice(1)) for _ in range(2)]
    heard: list[list[np.ndarray]] = [[], []]  # type: ignore[type-arg]
    for index, start in enumerate(range(0, len(x), CHUNK)):
        if index == 9:
            eager.successor = fast
        if index == 12:
            members.append(pool.join(TestVoice(1)))
            heard.append([])
        for member in members:
            member.push(x[start : start + CHUNK])
        pool.tick()
        for parts, member in zip(heard, members, strict=True):
            parts.append(pool.pull(member))
    assert pool.backend is fast and {member.backend for member in members} == {fast}
    for parts in heard[:2]:
        got = np.concatenate(parts)
        np.testing.assert_allclose(got, wanted[: len(got)], atol=2e-6)
    assert len(np.concatenate(heard[2])) == 12 * CHUNK - converter.latency


def test_states_go_from_one_layout_to_another() -> None:
    """The shipped model in plain torch keeps its pitch network's state in float64, engines do
    not."""
    from rtvc.models.streaming.assets import load_default

    model = load_default()
    plain, fine = Layout.of(model.initial(1)), Layout.of(exact(model).initial(1))
    assert fine.size > plain.size
    state = plain.pack(plain.unpack(torch.randn(2, plain.size)))
    assert torch.equal(plain.taken(fine.taken(state, plain), fine), state)
    with pytest.raises(EngineError, match="expected a state of this model"):
        plain.taken(DelayConverter().initial(1)[:, 0], Layout.of(DelayConverter().initial(1)))


def test_a_parked_session_goes_on_in_a_faster_engine(
    converter: TinyConverter, engines: Path
) -> None:
    eager, x = TorchBackend(converter, CHUNK), signal()
    before = Session(eager, TestVoice(1))
    begun = before.push(x[: 5 * CHUNK])
    after = Session(load(engines / "onnx", converter), TestVoice(2))
    after.resume(before.park())
    got = np.concatenate([begun, after.push(x[5 * CHUNK :]), after.flush()])
    np.testing.assert_allclose(got, streamed(eager, None, 0), atol=2e-6)


@pytest.mark.slow
def test_the_search_runs_beside_and_what_it_finds_takes_over(
    converter: TinyConverter, engines: Path, tmp_path: Path
) -> None:
    """The real thing: another process times, and builds what is missing; this one loads what that
    found."""
    shutil.copytree(engines / "onnx", place(converter, "onnx", CHUNK, tmp_path))
    eager = TorchBackend(converter, CHUNK)
    search = Handover(eager, converter, [CHUNK], tmp_path, ("onnx",))
    prepared: list[str] = []
    search.prepare = lambda backend: prepared.append(backend.name)
    search.start()
    assert search.finished.wait(500) and not search.problem
    known = recall(tmp_path, key(converter, CHUNK, worthwhile(("onnx",))))
    assert known is not None and known["backend"] == search.current.name
    assert {"sessions", "cpu_ms", "many_ms"} <= set(known["measured"]["onnx"])
    took = [] if search.current is eager else [search.current.name]
    assert prepared == took and (eager.successor is search.current) == bool(took)


def test_an_answer_of_the_builder_is_taken_over_between_two_steps(
    converter: TinyConverter, engines: Path, tmp_path: Path
) -> None:
    shutil.copytree(engines / "onnx", place(converter, "onnx", CHUNK, tmp_path))
    eager = TorchBackend(converter, CHUNK)
    search = Handover(eager, converter, [CHUNK, 300], tmp_path, ("onnx",))
    told, weights = packed(converter)
    order = {"chunks": [CHUNK], "cache": str(tmp_path), "candidates": ["onnx"], "model": told}
    answers = list(builder.improvements(weights, order))
    assert answers[-1]["chunk"] == CHUNK and answers[-1]["backend"] in ("torch-eager", "onnx")
    session, x = Session(eager, TestVoice(1)), signal()
    begun = session.push(x[: 5 * CHUNK])
    search._heed({"chunk": 300, "backend": "onnx"})  # for the next time
    search._heed({"chunk": CHUNK, "backend": "torch-eager"})  # what steps already
    assert eager.successor is None
    search._heed({"chunk": CHUNK, "backend": "onnx"})
    got = np.concatenate([begun, session.push(x[5 * CHUNK :]), session.flush()])
    assert session.backend.name == "onnx"
    np.testing.assert_allclose(got, streamed(TorchBackend(converter, CHUNK), None, 0), atol=2e-6)


def test_a_search_that_finds_nothing_says_why_and_what_steps_goes_on(
    converter: TinyConverter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    eager = TorchBackend(converter, CHUNK)

    class Local(TinyConverter):
        """Of no module that another process could import."""

    search = Handover(eager, Local().eval(), [CHUNK], tmp_path, ("onnx",))
    search.run()
    assert search.finished.is_set() and "Local" in search.problem and eager.successor is None
    assert "torch-eager goes on" in caplog.text


def test_the_builder_ends_with_the_process_that_started_it(
    converter: TinyConverter, tmp_path: Path
) -> None:
    search = Handover(
        TorchBackend(converter, CHUNK), converter, [CHUNK], tmp_path / "engines", ("onnx",)
    )
    search.start()
    while search._child is None:
        time.sleep(0.01)
    child = search._child
    search.stop()
    assert child.wait(120) != 0, "it was interrupted, it did not come to its end"
    search.join(120)
    assert not search.is_alive() and not search.problem


def test_a_machine_that_was_never_measured_begins_with_torch_at_once(
    converter: TinyConverter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "cache_folder", lambda: tmp_path)
    costs = {300: 9.0, 600: 9.0, 1200: 9.0}
    monkeypatch.setattr(opening, "processor_ms", lambda backend: costs[backend.chunk])
    backend, search = opening.begin(converter)
    assert isinstance(backend, TorchBackend) and backend.chunk == 600 and search is not None
    assert search.chunks == [600, 300], "the shorter one is got ready for the next time"
    costs.update({600: 99.0, 1200: 99.0})
    backend, search = opening.begin(converter)
    assert backend.chunk == 1200 and search is not None, "too slow is no reason to wait"
    backend, search = opening.begin(converter, chunk=300)
    assert backend.chunk == 300 and search is not None and search.chunks == [300]
    names = worthwhile(opening.CANDIDATES)
    figures = {"torch-eager": {"cpu_ms": 1.0}}
    remember(
        tmp_path,
        key(converter, 300, names),
        {"backend": "torch-eager", "measured": figures, "refused": {}},
    )
    backend, search = opening.begin(converter)
    assert backend.chunk == 300 and search is None, "what was measured is believed"


def test_a_model_arrives_in_another_process_as_it_was(tmp_path: Path) -> None:
    """Both generations: the weights to the bit, and the dial where it was."""
    tiny = {"encoder": EncoderConfig(hidden=8, dilations=(1,), content=4), "decoder_hidden": 8}
    dial = DialConverter(DialConfig(**tiny)).eval()  # type: ignore[arg-type]
    dial.set_lookahead(4)
    for model in (dial, StreamingConverter(StreamingConfig(decoder_hidden=8)).eval()):
        told, weights = packed(model)
        made = unpacked(json.loads(json.dumps(told)), weights)
        assert made.latency == model.latency and answer(made, 600) == answer(model, 600)
    assert unpacked(*packed(dial)).latency == 240 + 4 * 300


def test_the_same_weights_at_another_look_ahead_are_another_engine() -> None:
    tiny = {"encoder": EncoderConfig(hidden=8, dilations=(1,), content=4), "decoder_hidden": 8}
    dial = DialConverter(DialConfig(**tiny)).eval()  # type: ignore[arg-type]
    before = model_hash(dial)
    dial.set_lookahead(2)
    assert model_hash(dial) != before
