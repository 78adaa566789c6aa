"""The iSTFT kernel against plain torch, float64 and torch.istft; chunk by chunk with its tail; as a
registered operator."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rtvc.kernels.istft import Form, istft, istft_operator, reference, synthesis_matrix
from rtvc.layers.synthesis import Istft
from tests.support.kernel_checks import DTYPES, as_good_as_torch, interpreter, poisoned

interpreter()

from rtvc.kernels.istft_triton import forward  # noqa: E402


@pytest.fixture(autouse=True)
def nan_memory() -> Iterator[None]:
    with poisoned():
        yield


def draw(
    batch: int, size: int, hop: int, frames: int, form: str, first: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """x, tail and matrix; phases reach far outside of one turn."""
    shape = (batch, frames, size + 2) if first else (batch, size + 2, frames)
    x = torch.randn(shape).mT if first else torch.randn(shape)
    if form != "complex":
        x[:, size // 2 + 1 :] *= 30
    return x, torch.randn(batch, 1, size - hop), synthesis_matrix(size, hop).float()


CASES: list[
    tuple[int, int, int, int, Form, bool, int]
] = [  # batch, size, hop, frames, form, frames first, blocks a program
    (24, 20, 5, 61, "sine", False, 512),
    (33, 20, 5, 1, "sine", False, 64),
    (29, 20, 5, 2, "polar", True, 64),
    (5, 60, 15, 7, "complex", True, 32),
    (1, 600, 150, 4, "complex", True, 32),
    (30, 22, 8, 13, "polar", False, 128),
    (2, 16, 16, 9, "complex", False, 32),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_samples_and_tail_are_as_good_as_plain_torch(
    case: tuple[int, int, int, int, Form, bool, int], dtype: torch.dtype
) -> None:
    batch, size, hop, frames, form, first, rows = case
    x, tail, matrix = draw(batch, size, hop, frames, form, first)
    x = x.to(dtype)
    y, after = forward(x, tail, matrix, hop, form, rows=rows)
    rough, rough_after = reference(x, tail.to(dtype), matrix.to(dtype), hop, form)
    exact, exact_after = reference(x.double(), tail.double(), matrix.double(), hop, form)
    as_good_as_torch("y", y, rough, exact)
    if size > hop:
        as_good_as_torch("tail", after, rough_after.to(after.dtype), exact_after)


@pytest.mark.parametrize(("size", "hop"), [(20, 5), (600, 150), (22, 8)])
def test_it_is_torch_istft_in_any_chunking(size: int, hop: int) -> None:
    x = torch.randn(2, size + 2, 40, dtype=torch.float64)
    x[:, [size // 2 + 1, -1]] = 0  # imaginary parts of the real bins
    matrix, state, parts = (
        synthesis_matrix(size, hop),
        torch.zeros(2, 1, size - hop, dtype=torch.float64),
        [],
    )
    for chunk in x.split([1, 2, 17, 20], -1):
        y, state = istft(chunk, state, matrix, hop=hop)
        parts.append(y)
    real, imaginary = x.chunk(2, 1)
    window = torch.hann_window(size, dtype=torch.float64)
    wanted = torch.istft(torch.complex(real, imaginary), size, hop, size, window, center=True)
    got = torch.cat(parts, -1)[:, 0, size // 2 :]
    inner = slice(size, min(got.shape[-1], wanted.shape[-1]) - size)  # where enough frames overlap
    torch.testing.assert_close(got[:, inner], wanted[:, inner], rtol=0, atol=1e-12)


def test_it_is_the_synthesis_of_the_streaming_model() -> None:
    layer = Istft(60, 15).double()
    x, state = (
        torch.randn(2, 62, 5, dtype=torch.float64),
        torch.randn(2, 1, 45, dtype=torch.float64),
    )
    for got, wanted in zip(istft(x, state, layer.matrix, hop=15), layer(x, state), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["complex", "polar", "sine"])
def test_the_operator_is_registered_correctly(form: Form) -> None:
    x, tail, matrix = (z.double() for z in draw(2, 6, 2, 3, form))
    x, tail = (x / 30).requires_grad_(), tail.requires_grad_()
    torch.library.opcheck(istft_operator, (x, tail, matrix, 2, form))
    torch.use_deterministic_algorithms(False)
    assert torch.autograd.gradcheck(lambda a, b: istft_operator(a, b, matrix, 2, form), (x, tail))


def test_what_does_not_fit_is_refused() -> None:
    x, tail, matrix = draw(2, 20, 5, 3, "complex")
    with pytest.raises(ValueError, match="form"):
        istft(x, tail, matrix, hop=5, form="cartesian")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_fft less one hop"):
        istft(x, tail[..., :3], matrix, hop=5)
    with pytest.raises(ValueError, match=r"\(B, 2 \* bins, T\)"):
        istft(x[:, :5], tail, matrix, hop=5)
    with pytest.raises(ValueError, match="even n_fft"):
        synthesis_matrix(21, 5)
