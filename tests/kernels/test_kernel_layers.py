"""The model on the registered operators is the model on plain torch: same sound, same states, same
loss curve."""

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rtvc.kernels.toolchain.dispatch import Implementation
from rtvc.layers.blocks import AdaBlock, ConvBlock
from rtvc.layers.dispatch import set_implementation
from rtvc.layers.norm import Statistics
from rtvc.layers.synthesis import Istft
from rtvc.layers.verify import verify_contract
from rtvc.models.streaming import StreamingConverter
from rtvc.models.styletts2.generator import AdaINResBlock, ISTFTNetGenerator
from rtvc.models.styletts_vc.blocks import AdainResBlk1d
from tests.support.kernel_checks import as_good_as_torch
from tests.support.small_models import small_converter


def operators(model: StreamingConverter) -> StreamingConverter:
    """A copy on the registered operators; the model itself is put on plain torch."""
    set_implementation(model, "reference")
    return set_implementation(copy.deepcopy(model), "fused")


def double(state: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, state)


@pytest.mark.parametrize("statistics", get_args(Statistics))
@pytest.mark.parametrize("grad", [False, True])
def test_the_operators_sound_and_remember_like_plain_torch(
    statistics: Statistics, grad: bool
) -> None:
    """In float64, where the operators run their references: three chunks, states carried."""
    model = small_converter(statistics=statistics).double()
    model.decoder.source.ramp = (
        torch.arange(1, 301, dtype=torch.float64) / 300
    )  # voicing moves along it: no float32 rounding here
    other = operators(model)
    voice = model.condition(*torch.randn(2, 2, 128, dtype=torch.float64) * 0.2).detach()
    state = mine = double(model.initial(2))
    with torch.set_grad_enabled(grad):
        for frames in (2, 1, 4):
            x = torch.randn(2, 1, 300 * frames, dtype=torch.float64) * 0.1
            wanted, state = model(x, voice, state)
            got, mine = other(x, voice, mine)
            torch.testing.assert_close(
                got, wanted, rtol=0, atol=1e-9 * float(wanted.detach().abs().max())
            )
    assert pytree.tree_structure(mine) == pytree.tree_structure(state)
    for a, b in zip(pytree.tree_leaves(mine), pytree.tree_leaves(state), strict=True):
        torch.testing.assert_close(
            a, b, rtol=0, atol=1e-9 * max(1.0, float(b.detach().abs().max()))
        )


def test_in_float32_the_operators_are_as_exact_as_plain_torch_and_keep_its_types() -> None:
    model, best = small_converter(), small_converter().double()
    best.decoder.source.ramp = torch.arange(1, 301, dtype=torch.float64) / 300
    other = operators(model)
    with torch.inference_mode():
        voice, state = model.condition(*torch.randn(2, 2, 128) * 0.2), model.initial(2)
        mine, exact = state, double(state)
        for frames in (2, 1, 4):
            x = torch.randn(2, 1, 300 * frames) * 0.1
            plain, state = model(x, voice, state)
            got, mine = other(x, voice, mine)
            wanted, exact = best(x.double(), voice.double(), exact)
            as_good_as_torch(f"{frames} frames", got, plain, wanted)
    assert [leaf.dtype for leaf in pytree.tree_leaves(mine)] == [
        leaf.dtype for leaf in pytree.tree_leaves(state)
    ]


def test_the_operators_learn_like_plain_torch() -> None:
    """Equal loss curves on a seed, for the blocks that train through kernels: adaptive norms, and
    AdaIN with either activation."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ada, self.leaky, self.snake = (
                AdaBlock(12, 3, 2),
                AdainResBlk1d(12, 12, 24),
                AdaINResBlock(12, 3, (1,), 24),
            )

        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            y, _ = self.ada(x, style[:, :48], self.ada.initial(len(x)))
            z: Tensor = self.snake(self.leaky(y, style[:, :24]), style[:, 24:48])
            return z

    def curve(implementation: Implementation) -> list[float]:
        torch.manual_seed(1)
        net = set_implementation(Net().double(), implementation)
        optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
        x, style, target = (
            torch.randn(3, *shape, dtype=torch.float64) for shape in ((12, 30), (48,), (12, 30))
        )
        losses = []
        for _ in range(8):
            loss = (net(x, style) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    wanted = curve("reference")
    assert wanted[-1] < 0.8 * wanted[0]
    assert curve("fused") == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("implementation", ["reference", "fused"])
def test_the_istftnet_head_equals_torch_istft_to_the_last_sample(
    implementation: Implementation,
) -> None:
    torch.manual_seed(0)
    net = ISTFTNetGenerator(
        style_dim=16,
        channels=16,
        rates=(3, 2),
        kernels=(6, 4),
        block_kernels=(3,),
        block_dilations=((1,),),
    ).double()
    spectrum = torch.randn(2, net.n_fft + 2, 9, dtype=torch.float64)
    magnitude, phase = spectrum.chunk(2, 1)
    expected = torch.istft(
        torch.polar(magnitude.exp(), phase.sin()), net.n_fft, net.hop, window=net.window.double()
    )
    got = set_implementation(net, implementation).wave(spectrum)
    torch.testing.assert_close(got, expected[:, None], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [ConvBlock, Istft])
def test_layers_on_the_operators_keep_the_contract(kind: type[nn.Module]) -> None:
    model = operators(small_converter())
    layer: Any = next(module for module in model.modules() if type(module) is kind)
    with torch.no_grad():
        verify_contract(layer, 16 if kind is ConvBlock else 602, frames=12, gradients=False)
