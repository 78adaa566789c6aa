"""On a GPU nothing may lie on the CPU: a step that makes a tensor there fails, or cannot be
captured as a CUDA graph.

Without a GPU, models run on fake tensors of another device, and every tensor that an operation
makes is looked at.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rtvc.benchmarks.gpu.models import paper_parts
from rtvc.benchmarks.gpu.stubs import shipped
from rtvc.kernels.toolchain.dispatch import Implementation
from rtvc.layers.dispatch import set_implementation

ELSEWHERE = torch.device("meta")
ROWS = 3


class OnlyThere(TorchDispatchMode):
    """Refuses operations that give tensors of the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(found):
            assert not isinstance(leaf, Tensor) or leaf.device == ELSEWHERE, (
                f"{func} gave a tensor on {leaf.device}"
            )
        return found


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with functorch.patch(fake_tensor_allow_meta=True):
        yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def run(module: nn.Module, call: Callable[[nn.Module, Callable[..., Tensor]], Any]) -> Any:
    """`call` with the module elsewhere, and with what makes tensors there."""
    module = copy.deepcopy(module).eval()
    with FakeTensorMode():
        module._apply(lambda x: torch.empty(x.shape, dtype=x.dtype, device=ELSEWHERE))
        with torch.inference_mode(), OnlyThere():  # type: ignore[no-untyped-call]
            return call(
                module, lambda *shape, **options: torch.empty(*shape, device=ELSEWHERE, **options)
            )


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_a_streaming_step_touches_the_device_alone(implementation: Implementation) -> None:
    model, _ = shipped(tiny=True)
    voice = model.condition(torch.zeros(1, 128), torch.zeros(1, 128)).shape[1]

    def call(module: Any, make: Callable[..., Tensor]) -> Tensor:
        y: Tensor = module(make(ROWS, 1, 600), make(ROWS, voice), module.initial(ROWS))[0]
        return y

    y = run(set_implementation(model, implementation), call)
    assert y.shape == (ROWS, 1, 600) and y.device == ELSEWHERE


@pytest.mark.parametrize("implementation", ["reference", "fused"])
@pytest.mark.parametrize("name", list(paper_parts()))
def test_the_papers_components_touch_the_device_alone(
    name: str, implementation: Implementation
) -> None:
    part = paper_parts()[name]
    inputs, module = part.inputs(80), part.build()

    def call(module: nn.Module, make: Callable[..., Tensor]) -> Any:
        return part.run(module, tuple(make(ROWS, *x.shape[1:], dtype=x.dtype) for x in inputs))

    found = run(set_implementation(module, implementation), call)
    assert all(leaf.device == ELSEWHERE for leaf in pytree.tree_leaves(found))


def test_a_tensor_on_the_cpu_is_found() -> None:
    class Careless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(3).to(x.device)

    with pytest.raises(AssertionError, match="on cpu"):
        run(Careless(), lambda module, make: module(make(3)))
