"""The state contract's combinators, convolutions, and the checker itself."""

import pytest
import torch
from torch import Tensor, nn

from rtvc.layers.contract import Delay, Serial, State, Streaming, chunked, leaf_names, offline
from rtvc.layers.conv import Conv
from rtvc.layers.verify import verify_contract
from tests.support.converters import Pointwise


def zoo() -> dict[str, tuple[Streaming, int]]:
    """Layers with the chunk unit each needs."""
    block = Serial(Conv(4, 4, 7, dilation=2, right=4), Pointwise(nn.GELU()), Conv(4, 4))
    return {
        "conv": (Conv(4, 4, 7), 1),
        "pointwise conv": (Conv(4, 6), 1),
        "dilated": (Conv(4, 4, 3, dilation=9), 1),
        "strided": (Conv(4, 4, 8, stride=4), 4),
        "look-ahead": (Conv(4, 4, 7, right=3), 1),
        "delay": (Delay(4, 3), 1),
        "no delay": (Delay(4, 0), 1),
        "strided twice": (Serial(Conv(4, 4, 8, stride=2), Conv(4, 4, 4, stride=2)), 4),
        "network": (Serial(block, Conv(4, 3, 3)), 1),
    }


@pytest.mark.parametrize("name", zoo())
def test_every_layer_keeps_the_contract(name: str) -> None:
    layer, unit = zoo()[name]
    verify_contract(layer, 4, unit=unit)


@pytest.mark.parametrize("name", ["conv", "dilated", "strided", "look-ahead", "strided twice"])
def test_linear_layers_are_bit_exact_under_any_chunking(name: str) -> None:
    """Integer weights and inputs in float64: every sum is exact, so equality is bitwise."""
    layer, _ = zoo()[name]
    layer.double()
    for p in layer.parameters():
        p.data = torch.randint(-4, 5, p.shape).double()
    x = torch.randint(-9, 10, (2, 4, 200)).double()
    whole, _ = layer(x, layer.initial(2))
    assert torch.equal(whole, chunked(layer, x, [40, 4, 8, 28, 120]))


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 1, 1), (4, 1, 2), (5, 2, 3), (6, 3, 1)]
)
def test_the_matrix_form_equals_conv1d(kernel: int, stride: int, dilation: int) -> None:
    layer = Conv(5, 3, kernel, stride=stride, dilation=dilation).double()
    x = torch.randn(2, 5, 60, dtype=torch.float64)
    wanted = nn.functional.conv1d(
        nn.functional.pad(x, (layer.past, 0)),
        layer.weight.mT,
        layer.bias,
        stride,
        dilation=dilation,
    )
    torch.testing.assert_close(layer(x, layer.initial(2))[0], wanted, rtol=0, atol=1e-12)


def test_look_ahead_equals_the_centred_convolution() -> None:
    layer = Conv(4, 4, 7, right=3)
    x = torch.randn(1, 4, 50)
    same = nn.functional.conv1d(x, layer.weight.mT, layer.bias, padding=3)
    torch.testing.assert_close(offline(layer, x), same, rtol=0, atol=1e-5)


def test_latency_adds_up_across_rates() -> None:
    net = Serial(Conv(1, 1, 5, right=4), Conv(1, 1, 4, stride=4), Conv(1, 1, 3, right=1))
    assert (net.latency, net.ratio.denominator) == (2, 4)
    with pytest.raises(ValueError, match="insert a Delay"):
        Serial(Conv(1, 1, 5, right=3), Conv(1, 1, 4, stride=4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Conv(1, 1, 3, stride=4),
        lambda: Conv(1, 1, 3, right=3),
        lambda: Conv(1, 1, 8, stride=4, right=3),
    ],
)
def test_impossible_layers_are_refused(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]


def test_a_chunk_that_does_not_divide_is_refused() -> None:
    layer = Conv(1, 1, 8, stride=4)
    with pytest.raises(ValueError, match="multiple of the stride"):
        layer(torch.zeros(1, 1, 6), layer.initial(1))


class Acausal(Streaming):
    """Normalises over time: exactly what the contract forbids."""

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return x - x.mean(-1, keepdim=True), state


class Mutating(Streaming):
    """Writes into its state."""

    def initial(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1, 1, dtype=torch.float64)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = x + 0 * state
        state += x[:, :1, -1:]
        return y, state.clone()


@pytest.mark.parametrize("layer", [Acausal(), Mutating()])
def test_the_checker_catches_what_it_must(layer: Streaming) -> None:
    with pytest.raises(AssertionError):
        verify_contract(layer, 2)


def test_a_leaf_is_named_by_its_path() -> None:
    state = Serial(Serial(Conv(2, 2, 3, right=1), Delay(2, 1)), Conv(2, 2, 2)).initial(2)
    assert leaf_names(state) == ["0.0", "0.1", "1"]
    assert leaf_names({"body": state}) == ["body.0.0", "body.0.1", "body.1"]
