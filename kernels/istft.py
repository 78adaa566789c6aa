"""The iSTFT head in one pass: spectrum from the network's outputs, inverse DFT, window, overlap-add
with a carried tail.

Two networks end in it: iSTFTNet (Kaneko et al. 2022, arXiv 2203.02395; StyleTTS 2's decoder, n_fft
20, hop 5), which gives a log-magnitude and a phase, and the streaming model (n_fft 600, hop 150),
which gives a spectrum. Frame t covers the samples t * hop .. t * hop + n_fft; the first hop of them
is complete when the frame is in. What later frames still add to is the tail, carried as state.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rtvc.kernels.forms import FORMS
from rtvc.kernels.toolchain.dispatch import Implementation, register_operator, use_operator

Form = Literal["complex", "polar", "sine"]
"""What the two halves of the input are. `complex`: real and imaginary parts. `polar`: log-magnitude
and phase. `sine`: log-magnitude, and a number whose sine is the phase (iSTFTNet)."""


def synthesis_matrix(size: int, hop: int, window: Tensor | None = None) -> Tensor:
    """The inverse real DFT, windowed and divided by the sum of squared windows that overlap a
    sample in the long run.

    Args:
        size: n_fft in samples, even.
        hop: samples between frames, at most size.
        window: (size,) of the analysis, on whose device all is computed; by default a periodic Hann
            window.

    Returns:
        (2 * bins, size) float64: rows of real parts, then of imaginary parts. `torch.istft` agrees
        wherever enough frames overlap.

    Raises:
        ValueError: an odd size, or a hop that leaves gaps.
    """
    if size % 2 or not 0 < hop <= size:
        raise ValueError(
            f"expected an even n_fft and a hop of 1 to n_fft, got n_fft {size} and hop {hop}"
        )
    window = torch.hann_window(size, dtype=torch.float64) if window is None else window.double()
    padded = F.pad(window.square(), (0, -size % hop))
    envelope = padded.reshape(-1, hop).sum(0).repeat(-(-size // hop))[:size]
    bins = size // 2 + 1
    n = torch.arange(size, dtype=torch.float64, device=window.device)
    angle = 2 * torch.pi * (n[:bins, None] * n % size) / size
    weight = torch.full((bins, 1), 2.0 / size, dtype=torch.float64, device=window.device)
    weight[0] = weight[-1] = 1.0 / size
    return torch.cat([torch.cos(angle) * weight, -torch.sin(angle) * weight]) * (window / envelope)


def istft(
    x: Tensor,
    tail: Tensor,
    matrix: Tensor,
    *,
    hop: int,
    form: Form = "complex",
    implementation: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """Samples of T frames, and the tail that the next frames add to.

    Args:
        x: (B, 2 * bins, T), float32, float16, bfloat16, or float64 (reference only), in any memory
            order; see `Form`.
        tail: (B, 1, n_fft - hop) float32 (float64 for float64 x), zeros at the start.
        matrix: (2 * bins, n_fft) float32 (float64 for float64 x), from `synthesis_matrix` or with
            another window.
        hop: samples between frames.
        form: what the halves of x are.
        implementation: see `rtvc.kernels.toolchain.dispatch`.

    Returns:
        (B, 1, T * hop) of x's dtype, and the next tail.

    Raises:
        ValueError: shapes that do not fit.
    """
    if form not in FORMS:
        raise ValueError(f"expected a form of {sorted(FORMS)}, got {form!r}")
    if x.ndim != 3 or matrix.ndim != 2 or x.shape[1] != matrix.shape[0] or matrix.shape[0] % 2:
        raise ValueError(
            "expected x (B, 2 * bins, T) and matrix (2 * bins, n_fft), got"
            f" {tuple(x.shape)} and {tuple(matrix.shape)}"
        )
    if not 0 < hop <= matrix.shape[1] or tail.shape != (x.shape[0], 1, matrix.shape[1] - hop):
        shape = (x.shape[0], 1, matrix.shape[1] - hop)
        raise ValueError(
            f"expected a tail of shape {shape} for hop {hop}, n_fft less one hop, got"
            f" {tuple(tail.shape)}"
        )
    if use_operator(x, implementation):
        outputs: tuple[Tensor, Tensor] = istft_operator(x, tail, matrix, hop, form)
        return outputs
    return reference(x, tail, matrix, hop, form)


def spectrum(x: Tensor, form: str) -> Tensor:
    """x (B, 2 * bins, T) -> real over imaginary parts, (B, 2 * bins, T)."""
    if form == "complex":
        return x
    magnitude, phase = x.chunk(2, 1)
    magnitude, phase = torch.exp(magnitude), torch.sin(phase) if form == "sine" else phase
    return torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], 1)


def reference(
    x: Tensor, tail: Tensor, matrix: Tensor, hop: int, form: str
) -> tuple[Tensor, Tensor]:
    """Plain torch, as a matrix product and shifted sums: exportable, and exact in float64."""
    batch, _, frames = x.shape
    size = matrix.shape[1]
    count = -(-size // hop)
    parts = spectrum(x.to(matrix.dtype), form).mT @ matrix
    if count * hop > size:
        parts = F.pad(parts, (0, count * hop - size))
    # A frame reaches over `count` hops: its k-th part is added to the block of output k hops after
    # the frame's first. So part k of all frames is shifted by k blocks, and the sum over k is the
    # overlap-add. The tail that came in is what earlier frames had left for the first blocks.
    parts = parts.unflatten(-1, (count, hop))  # (B, T, count, hop)
    blocks = F.pad(tail.to(matrix.dtype)[:, 0], (0, (count + frames - 1) * hop - tail.shape[-1]))
    shifted = [F.pad(parts[:, :, k], (0, 0, k, count - 1 - k)) for k in range(count)]
    blocks = blocks.unflatten(-1, (-1, hop)) + torch.stack(shifted).sum(0)
    y, rest = (
        blocks[:, :frames].reshape(batch, 1, frames * hop),
        blocks[:, frames:].reshape(batch, 1, (count - 1) * hop),
    )
    return y.to(x.dtype), rest[..., : size - hop].to(tail.dtype)


def reference_backward(
    dy: Tensor, dtail: Tensor, x: Tensor, matrix: Tensor, hop: int, form: str
) -> tuple[Tensor, Tensor]:
    """Plain torch: dx (B, 2 * bins, T), and the gradient of the tail that came in."""
    wide, size, frames = matrix.dtype, matrix.shape[1], x.shape[2]
    count = -(-size // hop)
    # Backwards a sample gives its gradient to every frame that covers it: frame t takes the `count`
    # blocks from t on. The tail that came in was added as it is.
    rest = F.pad(dtail.to(wide), (0, (count - 1) * hop - dtail.shape[-1]))
    blocks = torch.cat([dy.to(wide), rest], -1)[:, 0].unflatten(-1, (-1, hop))
    parts = torch.cat([blocks[:, k : k + frames] for k in range(count)], -1)[..., :size]
    back = (parts @ matrix.mT).mT
    first = blocks.flatten(1)[:, None, : dtail.shape[-1]].to(dtail.dtype)
    if form == "complex":
        return back.to(x.dtype), first
    # By e^a cos p and e^a sin p: the derivative by a is the spectrum itself, by p a quarter turn of
    # it; `sine` has p = sin(angle) inside.
    real, imaginary = back.chunk(2, 1)
    magnitude, angle = x.to(wide).chunk(2, 1)
    magnitude, phase = torch.exp(magnitude), torch.sin(angle) if form == "sine" else angle
    c, s = magnitude * torch.cos(phase), magnitude * torch.sin(phase)
    by_phase = imaginary * c - real * s
    if form == "sine":
        by_phase = by_phase * torch.cos(angle)
    return torch.cat([real * c + imaginary * s, by_phase], 1).to(x.dtype), first


def samples_and_tail(
    x: Tensor, tail: Tensor, matrix: Tensor, hop: int, form: str
) -> tuple[Tensor, Tensor]:
    """What `reference` gives, in memory of its own."""
    y, after = reference(x, tail, matrix, hop, form)
    return y.clone(), after.clone()


def launch(x: Tensor, tail: Tensor, matrix: Tensor, hop: int, form: str) -> tuple[Tensor, Tensor]:
    """`samples_and_tail` as one kernel: in CUDA C++ for small windows where that can be compiled,
    else in Triton."""
    from rtvc.kernels import istft_cuda, istft_triton

    if istft_cuda.available(matrix.shape[1], x.dtype):
        return istft_cuda.forward(x, tail, matrix, hop, form)
    return istft_triton.forward(x, tail, matrix, hop, form)


istft_operator = register_operator(
    "istft",
    samples_and_tail,
    kernel=launch,
    fake=lambda x, tail, matrix, hop, form: (
        x.new_empty(x.shape[0], 1, x.shape[2] * hop),
        tail.new_empty(tail.shape),
    ),
)
"""Samples (B, 1, T * hop) and the next tail, from the arguments of `reference`."""


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, matrix, *rest = inputs
    ctx.save_for_backward(x, matrix)
    ctx.rest = rest


def _differentiate(ctx: Any, dy: Tensor, dtail: Tensor) -> tuple[Tensor | None, ...]:
    dx, dfirst = reference_backward(dy, dtail, *ctx.saved_tensors, *ctx.rest)
    return dx, dfirst, None, None, None


istft_operator.register_autograd(_differentiate, setup_context=_keep)
