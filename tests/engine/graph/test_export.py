"""Exported graphs: functional, any batch, and equal to the model over several chunks."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtvc.engine.backends.base import Layout
from rtvc.engine.graph.export import Graph, export_step, program_of
from rtvc.engine.graph.precision import in_float16, in_float32
from rtvc.engine.trial import fidelity, probe
from rtvc.errors import EngineError
from rtvc.models.streaming import StreamingConverter
from tests.support.converters import TinyConverter
from tests.support.small_models import small_converter

CHUNK = 600


@pytest.fixture(scope="module")
def model() -> StreamingConverter:
    """The shipped architecture, small."""
    return small_converter(decoder_dilations=(2,)).requires_grad_(False)


def snr(got: Tensor, wanted: Tensor) -> float:
    """Signal over error in dB. Another order of float32 sums in an untrained network gives 50 to
    120, a stale state under 20."""
    assert got.shape == wanted.shape
    return float(
        10 * torch.log10(wanted.square().sum() / (got - wanted).square().sum().clamp(min=1e-30))
    )


def count_of(program: torch.export.ExportedProgram, dtype: torch.dtype) -> int:
    """How many tensors of a type the program computes or holds."""
    values = [node.meta.get("val") for node in program.graph.nodes]
    return sum(isinstance(value, Tensor) and value.dtype == dtype for value in values)


@pytest.fixture(scope="module")
def step(model: StreamingConverter) -> Graph:
    return export_step(model, CHUNK)


def test_the_whole_step_runs_two_chunks_like_the_model(
    model: StreamingConverter, step: Graph
) -> None:
    """The program's own state goes back in; the batch is another than the one it was traced
    with."""
    signature = step.program.graph_signature
    assert not signature.buffers_to_mutate and not signature.user_inputs_to_mutate
    assert (step.inputs, step.outputs) == (("x", "voice", "state"), ("y", "next"))
    layout = Layout.of(model.initial(1))
    voice = model.condition(torch.randn(5, 128) * 0.1, torch.randn(5, 128) * 0.1)
    state = model.initial(5)
    packed = layout.pack(state)
    for _ in range(2):
        x = torch.randn(5, 1, CHUNK) * 0.1
        wanted, state = model(x, voice, state)
        got, packed = step(x, voice, packed)
        assert snr(got, wanted) > 40
    assert snr(packed, layout.pack(state)) > 40
    stale, _ = step(x, voice, layout.pack(model.initial(5)))
    assert snr(stale, wanted) < 20


def test_float32_and_float16_sound_like_the_model(model: StreamingConverter, step: Graph) -> None:
    """TensorRT has no float64: without it F0 stays within a hundredth of a cent and the phase
    within a thousandth of a cycle."""
    assert count_of(step.program, torch.float64) > 100
    single = in_float32(step.program)
    half = in_float16(single, least=8000)  # as in the shipped model, not the pitch network
    assert (
        count_of(single, torch.float64)
        == count_of(half, torch.float64)
        == count_of(single, torch.float16)
        == 0
    )
    assert count_of(step.program, torch.complex64) and not count_of(single, torch.complex64)
    assert 3 < count_of(half, torch.float16) < 60
    assert {
        name for name in single.state_dict if not name.startswith(("constant_", "triangle_"))
    } < set(step.program.state_dict)
    assert not any(
        "acoustic" in name for name in single.state_dict
    )  # the style encoders are not part of a step
    voice = model.condition(torch.randn(1, 128) * 0.1, torch.randn(1, 128) * 0.1)
    layout, state = Layout.of(model.initial(1)), model.initial(1)
    run, run_half = single.module(), half.module()
    own, drift = layout.pack(state), list[float]()
    wanted, close, near, alone = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    for x in probe(CHUNK, 80):
        before = layout.pack(state)
        close.append(run(x, voice, before)[0])
        near.append(run_half(x, voice, before)[0])
        y, own = run(x, voice, own)
        alone.append(y)
        y, state = model(x, voice, state)
        wanted.append(y)
        mine, true = layout.unpack(own).decoder.source, state.decoder.source
        apart = mine.phase - true.phase
        apart = (apart - apart.round()).abs()
        assert apart < 1e-3 and (1200 * torch.log2(mine.f0 / true.f0)).abs() < 0.01
        harmonics = model.sample_rate / 2 / true.f0
        drift.append(float(2 * torch.pi * apart * harmonics / 3**0.5))

    def sound(parts: list[Tensor]) -> Any:
        return torch.cat(parts).flatten().double().numpy()

    # One step from the model's own state is rounded and nothing else. Products of up to 1,200 terms
    # err by sqrt(1200) 2^-24 = 2e-6 of their size; twenty layers in quadrature by 1e-5, 100 dB, and
    # the network may multiply that by ten. Factors of float16 err by up to 2^-11, 66 dB, and by
    # half of that as a rule.
    truth = sound(wanted)
    assert fidelity(sound(close), truth) > 80
    assert 60 < fidelity(sound(near), truth) < 80
    # On its own state its phase drifts besides: harmonic k by k times that, so all of them by K /
    # sqrt(3) times.
    assert fidelity(sound(alone), truth) > -20 * math.log10(
        sum(x**2 for x in drift) ** 0.5 / len(drift) ** 0.5
    )


def test_our_kernels_keep_their_float64_phase() -> None:
    """Graphs that call the registered source are given casts around it, not another operator."""

    class Source(nn.Module):
        def forward(self, f0: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
            zeros = torch.zeros_like(f0[:, :1])
            arguments = (
                f0.double(),
                f0 * 0 + 1,
                zeros.double() + 100,
                zeros,
                phase.double(),
                24_000,
                300,
            )
            pulses, after = torch.ops.rtvc.harmonic_source(*arguments)
            return pulses.float(), after.float()

    import rtvc.kernels.source  # noqa: F401 (registers the operator)

    f0, phase = torch.full((3, 2), 117.0), torch.rand(3, 1)
    program = torch.export.export(
        Source(), (f0, phase), dynamic_shapes=({0: torch.export.Dim("b", min=1, max=8)},) * 2
    )
    single = in_float32(program)
    assert 0 < count_of(single, torch.float64) < count_of(program, torch.float64)
    for got, wanted in zip(single.module()(f0, phase), Source()(f0, phase), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)


def test_any_converter_exports() -> None:
    converter: Any = TinyConverter().eval()
    graph = export_step(converter, 300)
    state = converter.initial(1)
    x, voice = torch.randn(1, 1, 300), converter.condition(torch.randn(1, 128), torch.randn(1, 128))
    torch.testing.assert_close(
        graph(x, voice, Layout.of(state).pack(state))[0], converter(x, voice, state)[0]
    )
    with pytest.raises(EngineError, match="multiple of the model's hop of 300"):
        export_step(converter, 400)


class Branching(nn.Module):
    """Its graph depends on the data."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return (x, state) if x.sum() > 0 else (-x, state)


def test_a_graph_that_depends_on_the_data_is_refused() -> None:
    with pytest.raises(EngineError, match="cannot export a branching layer for any batch"):
        program_of(Branching(), (torch.zeros(3, 4), torch.zeros(3, 4)), "a branching layer")
