"""What runs one step of a converter. Sessions and pools are written against `Backend` alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rtvc.errors import EngineError
from rtvc.layers.contract import State, leaf_names
from rtvc.models.streaming.interface import Converter, conditioned
from rtvc.models.streaming.precise_pitch import exact
from rtvc.voices.voice import Voice

LANES = {torch.float32: 1, torch.float64: 2, torch.int64: 1, torch.int32: 1, torch.bool: 1}
"""float32 values that one value of a type takes: a float64 is kept as a float32 and the float32 of
its remainder."""


@dataclass(frozen=True)
class Layout:
    """How a state pytree lies in one packed tensor (B, S), S float32 values a row.

    One packed tensor in and one out halves the overhead of a step against one binding a leaf, and
    makes a pool of sessions a matrix whose rows are copied, parked and resumed whole. Whole numbers
    are kept by value: they must stay below 2^24, so a state may count modulo something, never
    forever.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    spec: pytree.TreeSpec

    @classmethod
    def of(cls, state: State) -> "Layout":
        """The layout of a state of one row.

        Raises:
            EngineError: for a leaf of a type that float32 values cannot hold.
        """
        leaves, spec = pytree.tree_flatten(state)
        names = leaf_names(state)
        for name, leaf in zip(names, leaves, strict=True):
            if leaf.dtype not in LANES:
                raise EngineError(
                    f"expected float32, the state leaf {name} is {leaf.dtype}: engines step in"
                    " float32"
                )
        return cls(
            tuple(names),
            tuple(tuple(leaf.shape[1:]) for leaf in leaves),
            tuple(leaf.dtype for leaf in leaves),
            spec,
        )

    @property
    def sizes(self) -> list[int]:
        """Values a row of every leaf."""
        return [
            prod(shape) * LANES[dtype]
            for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        ]

    @property
    def size(self) -> int:
        """S, values a row."""
        return sum(self.sizes)

    def pack(self, state: State) -> Tensor:
        """A state pytree of B rows -> (B, S)."""
        parts = []
        for leaf in pytree.tree_leaves(state):
            flat = leaf.reshape(leaf.shape[0], -1)
            parts.append(flat.float())
            if flat.dtype == torch.float64:
                parts.append((flat - flat.float().double()).float())
        return torch.cat(parts, 1)

    def unpack(self, packed: Tensor) -> State:
        """(B, S) -> the state pytree of B rows, as views where the type allows."""
        leaves = []
        for part, shape, dtype in zip(
            packed.split(self.sizes, 1), self.shapes, self.dtypes, strict=True
        ):
            if dtype == torch.float64:
                high, low = part.double().chunk(2, 1)
                part = high + low
            leaf = part.unflatten(1, shape) if shape else part.squeeze(1)
            leaves.append(leaf if dtype == leaf.dtype else leaf.to(dtype))
        return pytree.tree_unflatten(leaves, self.spec)

    def taken(self, packed: Tensor, other: "Layout") -> Tensor:
        """States (B, S') as another backend of the same model keeps them -> the same states (B, S)
        as this layout does; only the precision of their numbers may differ.

        Raises:
            EngineError: for states of another model.
        """
        if other == self:
            return packed
        if (other.names, other.shapes) != (self.names, self.shapes):
            raise EngineError(
                f"expected a state of this model, got one of {other.size} numbers: begin another"
                " session"
            )
        leaves = pytree.tree_leaves(other.unpack(packed))
        cast = [leaf.to(dtype) for leaf, dtype in zip(leaves, self.dtypes, strict=True)]
        return self.pack(pytree.tree_unflatten(cast, self.spec))


class PackedStep(nn.Module):
    """The exported face of any converter: tensors in, tensors out, the voice's condition computed
    outside the graph."""

    def __init__(self, converter: Converter, layout: Layout) -> None:
        super().__init__()
        self.converter, self.layout = converter, layout

    def forward(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N) and the next state (B, S)."""
        y, new = self.converter(x, voice, self.layout.unpack(state))
        return y, self.layout.pack(new)


class Backend:
    """Runs steps of a fixed number of samples, for any number of rows that `batches` allows.

    Attributes:
        name: as `rtvc build --backend` and the benchmarks spell it.
        chunk: samples a step, N, a multiple of the converter's hop.
        batches: the numbers of rows it was compiled for, ascending; empty when any number will do.
        device: where x, voice and state must lie.
        stretches: whether a step may hold any multiple of `chunk` samples instead.
        layout: how its states lie in (B, S).
        layouts: those whose states it can go on from, its own first: other backends of the same
            model keep some numbers in another precision.
        successor: a faster backend of the same model, chunk and device that is ready to take over;
            whoever steps changes to it between two steps, states by `Layout.taken`.
    """

    name = "torch-eager"
    batches: Sequence[int] = ()
    stretches = False
    successor: "Backend | None" = None

    def __init__(self, converter: Converter, chunk: int, *, device: str = "cpu") -> None:
        if chunk <= 0 or chunk % converter.hop:
            raise EngineError(
                f"expected a chunk of a multiple of the model's hop of {converter.hop} samples, got"
                f" {chunk}"
            )
        self.converter, self.chunk, self.device = converter, chunk, torch.device(device)
        self.sample_rate, self.latency = converter.sample_rate, converter.latency
        with torch.inference_mode():
            start = converter.initial(1)
            finer = Layout.of(exact(converter).initial(1))
        self.layout = Layout.of(start)
        self.layouts: tuple[Layout, ...] = (self.layout, finer)
        self._start = self.layout.pack(start).to(self.device)

    def initial(self, batch: int) -> Tensor:
        """The packed state before the first sample, (B, S)."""
        return self._start.repeat(batch, 1)

    def condition(self, voice: Voice, *, pitch: float = 0.0, prosody: float = 1.0) -> Tensor:
        """Everything a step needs to know of one voice, (1, V) on the backend's device."""
        with torch.inference_mode():
            condition = conditioned(self.converter, voice, pitch=pitch, prosody=prosody)
            return condition.to(self.device, torch.float32)

    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S), all float32 -> y (B, 1, N) and the next state
        (B, S); no argument is changed."""
        raise TypeError(f"{type(self).__name__} does not define step")
