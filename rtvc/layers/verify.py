"""`verify_contract`: the one test that every layer and model under the state contract must pass."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rtvc.layers.contract import Streaming, chunked, put_rows, take_rows


def verify_contract(
    layer: Streaming,
    channels: int,
    *,
    frames: int = 48,
    unit: int = 1,
    batch: int = 3,
    tolerance: float = 1e-10,
    gradients: bool = True,
    draw: Callable[..., Tensor] = torch.randn,
    seed: int = 0,
) -> None:
    """Checks values, gradients, uneven chunks, desynchronised batches, purity, and causality, in
    float64.

    Args:
        layer: the layer; it is converted to float64 in place.
        channels: C of its input.
        frames: T of the test input, a multiple of `unit`.
        unit: every chunk is a multiple of this many frames.
        batch: rows of the test input.
        tolerance: largest absolute difference allowed.
        gradients: also compare parameter gradients of the whole utterance with those of the chunked
            one.
        draw: makes the test input from its shape.
        seed: of the test input and the chunkings.

    Raises:
        AssertionError: with the property that failed and by how much.
    """
    layer = layer.double().eval()
    generator = torch.Generator().manual_seed(seed)
    x = draw(batch, channels, frames, generator=generator, dtype=torch.float64)
    whole, final = layer(x, layer.initial(batch))
    if whole.shape[-1] != int(frames * layer.ratio):
        raise AssertionError(
            f"{frames} frames in gave {whole.shape[-1]} out, the declared ratio {layer.ratio}"
            f" promises {frames * layer.ratio}"
        )
    for sizes in chunkings(frames, unit, generator):
        close("values under the chunking " + str(sizes), chunked(layer, x, sizes), whole, tolerance)
    check_state(layer, final, batch)
    check_rows(layer, x, whole, unit, tolerance)
    check_causality(layer, x, whole, unit, tolerance)
    if gradients and any(p.requires_grad for p in layer.parameters()):
        check_gradients(layer, x, unit, generator, tolerance)


def chunkings(frames: int, unit: int, generator: torch.Generator) -> list[list[int]]:
    """Single units, two halves, and three random partitions of `frames`."""
    units = frames // unit
    chunks = [[unit] * units, [unit * (units // 2), unit * (units - units // 2)]]
    for _ in range(3):
        cuts = (
            torch.randperm(units - 1, generator=generator)[: max(1, units // 4)]
            .add(1)
            .sort()
            .values.tolist()
        )
        edges = [0, *cuts, units]
        chunks.append([unit * (b - a) for a, b in pairwise(edges)])
    return chunks


def close(what: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raises unless the two tensors agree."""
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    error = (got - expected).abs().max().item() if got.numel() else 0.0
    if not error <= tolerance:
        raise AssertionError(f"{what}: differs by {error:.3g}, allowed {tolerance:.3g}")


def check_state(layer: Streaming, final: object, batch: int) -> None:
    """The state keeps its structure and shapes, and is batch first."""
    first = layer.initial(batch)
    if pytree.tree_structure(first) != pytree.tree_structure(final):
        raise AssertionError("the state's structure changes over a step")
    for old, new in zip(pytree.tree_leaves(first), pytree.tree_leaves(final), strict=True):
        if old.shape != new.shape or old.dtype != new.dtype or old.shape[:1] != (batch,):
            raise AssertionError(
                f"a state leaf goes from {tuple(old.shape)} {old.dtype} to {tuple(new.shape)}"
                f" {new.dtype}, not batch first and constant"
            )


def check_rows(layer: Streaming, x: Tensor, whole: Tensor, unit: int, tolerance: float) -> None:
    """Rows stepped at different times in shared batches equal rows stepped alone, and no state is
    written in place."""
    batch, ratio = len(x), layer.ratio
    pool, at = layer.initial(batch), [0] * batch
    outputs: list[list[Tensor]] = [[] for _ in range(batch)]
    turn = 0
    while any(position < x.shape[-1] for position in at):
        # Row r steps every (r + 1)-th turn: rows drift apart, and meet in ever other batches.
        active = [r for r in range(batch) if at[r] < x.shape[-1] and (r + turn) % (r + 1) == 0]
        turn += 1
        if not active:
            continue
        rows = torch.tensor(active)
        old = take_rows(pool, rows)
        kept = [leaf.clone() for leaf in pytree.tree_leaves(old)]
        y, new = layer(torch.stack([x[r, :, at[r] : at[r] + unit] for r in active]), old)
        if any(not torch.equal(a, b) for a, b in zip(kept, pytree.tree_leaves(old), strict=True)):
            raise AssertionError("the layer writes into the state that it was given")
        pool = put_rows(pool, rows, new)
        for index, r in enumerate(active):
            outputs[r].append(y[index])
            at[r] += unit
    for r in range(batch):
        got = torch.cat(outputs[r], -1)
        close(
            f"row {r} of a desynchronised batch",
            got,
            whole[r, ..., : int(x.shape[-1] * ratio)],
            tolerance,
        )


def check_causality(
    layer: Streaming, x: Tensor, whole: Tensor, unit: int, tolerance: float
) -> None:
    """Replacing the input after t never changes what came out before t: look-ahead only ever shows
    as latency."""
    half = x.shape[-1] // 2 // unit * unit
    cut = x.clone()
    cut[..., half:] = 0.37
    y, _ = layer(cut, layer.initial(len(x)))
    ready = int(half * layer.ratio)
    close(f"truncation at frame {half}", y[..., :ready], whole[..., :ready], tolerance)


def check_gradients(
    layer: Streaming, x: Tensor, unit: int, generator: torch.Generator, tolerance: float
) -> None:
    """Gradients through the chunked utterance equal those of the whole one."""

    def gradients(sizes: Sequence[int], weight: Tensor | None) -> tuple[list[Tensor], Tensor]:
        layer.zero_grad()
        y = chunked(layer, x, sizes)
        weight = (
            torch.randn(y.shape, generator=generator, dtype=y.dtype) if weight is None else weight
        )
        (y * weight).sum().backward()
        return [p.grad.clone() for p in layer.parameters() if p.grad is not None], weight

    whole, weight = gradients([x.shape[-1]], None)
    parts, _ = gradients([unit] * (x.shape[-1] // unit), weight)
    for a, b in zip(whole, parts, strict=True):
        close("gradients", b, a, tolerance * 100 * max(1.0, a.abs().max().item()))
