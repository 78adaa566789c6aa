"""Every operator under torch.compile and torch.export, one by one and in the model; and the switch
that leaves them out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtvc.benchmarks.gpu.stubs import shipped
from rtvc.benchmarks.kernel.run import STEMS, Case, cases
from rtvc.engine.backends.base import Layout, PackedStep
from rtvc.kernels.toolchain.dispatch import Implementation
from rtvc.layers.blocks import AdaBlock, ConvBlock
from rtvc.layers.dispatch import set_implementation

ROOT = Path(__file__).resolve().parents[2]
SHARED = {"adain": (3,), "istft": (2,), "block_step": (2, 3)}
"""Inputs without a row of their own for every row of the batch."""


def test_kernel_reference_test_and_benchmark_share_a_stem() -> None:
    kernels = {
        path.stem.removesuffix("_triton") for path in (ROOT / "kernels").glob("*_triton.py")
    } - {"activation"}
    assert kernels == set(STEMS)
    for stem in STEMS:
        assert all(
            (ROOT / name).is_file()
            for name in (
                f"kernels/{stem}.py",
                f"tests/kernels/test_kernel_{stem}.py",
                f"benchmarks/kernel/{stem}.py",
            )
        )


class Calling(nn.Module):
    """A case's operator as a module."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(2 * y for y in self.case.ways["operator"](*inputs))


def called(graph: torch.fx.Graph) -> Counter[str]:
    """Our operators in a graph, by name."""
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    return Counter(target.split(".")[1] for target in targets if target.startswith("rtvc."))


@pytest.mark.parametrize("stem", STEMS)
def test_an_operator_is_one_node_for_any_batch(stem: str) -> None:
    case = next(cases(stem, "odd"))
    drawn = case.inputs(torch.device("cpu"), torch.float32)
    module, batch = Calling(case), torch.export.Dim("batch", min=1, max=64)
    assert drawn[0] is not None
    rows = drawn[0].shape[0]
    free = tuple(
        None if x is None or i in SHARED.get(stem, ()) else {0: batch} for i, x in enumerate(drawn)
    )
    program = torch.export.export(module, drawn, dynamic_shapes=(free,))
    assert sum(called(program.graph).values()) == 1
    double = tuple(
        x if x is None or shape is None else torch.cat([x, x])
        for x, shape in zip(drawn, free, strict=True)
    )
    wanted = module(*double)
    for got, y in zip(program.module()(*double), wanted, strict=True):
        assert len(got) == 2 * rows and torch.equal(got, y)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for got, y in zip(compiled(*double), wanted, strict=True):
        assert torch.equal(got, y)


def step(implementation: Implementation) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A tiny model's step on packed states, and its inputs."""
    model: Any = set_implementation(shipped(tiny=True)[0], implementation)
    layout = Layout.of(model.initial(1))
    with torch.no_grad():
        voice = model.condition(
            *torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(0)) * 0.1
        )
        return PackedStep(model, layout).eval(), (
            torch.randn(3, 1, 600) * 0.1,
            voice,
            layout.pack(model.initial(3)),
        )


@pytest.mark.parametrize("implementation", ["fused", "reference", "auto"])
def test_the_switch_decides_what_an_exported_step_holds(implementation: Implementation) -> None:
    """Two launches a residual block, one for the source, one for the synthesis; none of ours when
    the reference is forced."""
    module, inputs = step(implementation)
    with torch.no_grad():
        program = torch.export.export(module, inputs)
        found = called(program.graph)
        blocks = sum(isinstance(part, AdaBlock | ConvBlock) for part in module.modules())
        assert found == (
            {"block_step": 2 * blocks, "istft": 1, "harmonic_source": 1}
            if implementation == "fused"
            else {}
        )
        for got, wanted in zip(program.module()(*inputs), module(*inputs), strict=True):
            torch.testing.assert_close(
                got, wanted, rtol=0, atol=1e-6 * max(1.0, float(wanted.abs().max()))
            )


def test_the_step_compiles_whole_with_our_operators_in_it() -> None:
    module, inputs = step("fused")
    with torch.no_grad():
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        for got, wanted in zip(compiled(*inputs), module(*inputs), strict=True):
            torch.testing.assert_close(
                got, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max()))
            )
