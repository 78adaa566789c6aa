"""The state contract: every layer is used like `torch.nn.GRU`, `y, state = layer(x, state)`.

x and y are (B, C, T); state is a pytree of tensors, batch first in every leaf, never written in
place. There is no streaming mode: a whole utterance is one big chunk that starts from
`layer.initial(batch)`, so training, offline conversion, live streaming and exported engines run the
same lines. Look-ahead is a causal layer plus an integer `latency`, declared by each layer and added
up by `Serial`.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

State = Any
"""A pytree of tensors, batch first in every leaf."""


class Streaming(nn.Module):
    """A layer under the state contract.

    Attributes:
        latency: output frames by which y lags its ideal alignment with x; offline callers trim
            them.
        ratio: output frames per input frame. A chunk must hold a multiple of `ratio.denominator`
            frames.
    """

    latency: int = 0
    ratio: Fraction = Fraction(1)

    def initial(self, batch: int) -> State:
        """The state before the first frame, for `batch` rows, on the layer's own device and
        dtype."""
        return ()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> y (B, C', T * ratio) and the next state."""
        raise TypeError(f"{type(self).__name__} does not define forward")


class Delay(Streaming):
    """Lets frames through `frames` later. Its own latency is declared, so that callers
    can count on it."""

    like: Tensor

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.channels, self.latency = channels, frames
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def initial(self, batch: int) -> Tensor:
        """Zeros, (B, C, frames)."""
        return self.like.new_zeros(batch, self.channels, self.latency)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, T) -> the same frames, `latency` later."""
        if not self.latency:
            return x, state
        x = torch.cat([state, x], -1)
        return x[..., : -self.latency], x[..., -self.latency :]


class Serial(Streaming):
    """One layer after another; latencies add up, at the rate of the last layer's output."""

    def __init__(self, *layers: Streaming) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        latency, ratio = Fraction(0), Fraction(1)
        for layer in layers:
            latency, ratio = latency * layer.ratio + layer.latency, ratio * layer.ratio
        if latency.denominator != 1:
            raise ValueError(
                f"the layers' latency is {latency} output frames, which is not whole: insert a"
                " Delay before the layer that changes the rate"
            )
        self.latency, self.ratio = int(latency), ratio

    def initial(self, batch: int) -> State:
        """A tuple, one state a layer."""
        return tuple(layer.initial(batch) for layer in self.streaming_layers())

    def streaming_layers(self) -> list[Streaming]:
        """The layers in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, Streaming)]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x (B, C, T) -> what the last layer makes of it."""
        states = []
        for layer, old in zip(self.streaming_layers(), state, strict=True):
            x, new = layer(x, old)
            states.append(new)
        return x, tuple(states)


def offline(layer: Streaming, x: Tensor) -> Tensor:
    """The whole utterance as one big chunk: latency is flushed with zeros and trimmed.

    x (B, C, T) -> y (B, C', T * ratio), aligned with x.
    """
    flush = -(-layer.latency * layer.ratio.denominator // layer.ratio.numerator)
    flush += -(x.shape[-1] + flush) % layer.ratio.denominator
    whole: Tensor = layer(F.pad(x, (0, flush)), layer.initial(len(x)))[0]
    return whole[..., layer.latency : layer.latency + int(x.shape[-1] * layer.ratio)]


def chunked(layer: Streaming, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same utterance in chunks of the given sizes, state carried; latency is not trimmed."""
    state, outputs = layer.initial(len(x)), []
    for chunk in x.split(list(sizes), -1):
        y, state = layer(chunk, state)
        outputs.append(y)
    return torch.cat(outputs, -1)


def leaf_names(state: State) -> list[str]:
    """The path of every leaf, as `body.2.keys`; used for the bindings of exported graphs."""
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(state)[0]]
    return [
        path.replace("']", "").replace("['", ".").replace("]", "").replace("[", ".").strip(".")
        for path in paths
    ]


def take_rows(pool: State, rows: Tensor) -> State:
    """The states of some sessions, gathered from a pool of them; rows is (R,) int64."""
    return pytree.tree_map(lambda leaf: leaf[rows], pool)


def put_rows(pool: State, rows: Tensor, state: State) -> State:
    """A new pool in which the given rows are replaced by `state`'s."""
    return pytree.tree_map(lambda leaf, new: leaf.index_copy(0, rows, new), pool, state)
