"""A step on fixed memory: two state buffers that take turns, and two recordings of the step, one
for either direction.

A CUDA graph replays the very addresses that it was captured with. With one recording from buffer A
to buffer B and one back, the state never moves: the next chunk starts where the last one ended.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rtvc.errors import EngineError

Launch = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""`launch(x, voice, state, y, after)`: starts one step that reads the first three and writes the
last two."""
Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what starts work, and gives back what starts it again: `capture` on a GPU, `direct` in
tests."""


def direct(start: Callable[[], None]) -> Callable[[], None]:
    """No recording: the work is started anew each time."""
    return start


def capture(start: Callable[[], None]) -> Callable[[], None]:
    """Records the work as a CUDA graph, after three rounds that load kernels and plans; gives back
    its replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            start()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        start()
    return graph.replay


class PingPong:
    """A fixed number of rows stepped chunk after chunk. For one caller at a time.

    Args:
        launch: starts a step.
        record: makes it repeatable.
        rows: B.
        chunk: N, samples a step.
        voice: V, numbers that condition a row.
        start: the packed state (1, S) before the first sample, on the device of the steps.
    """

    @torch.inference_mode()
    def __init__(
        self, launch: Launch, record: Record, *, rows: int, chunk: int, voice: int, start: Tensor
    ) -> None:
        self.start, self.turn = start, 0
        self.x, self.voice = start.new_zeros(rows, 1, chunk), start.new_zeros(rows, voice)
        self.states = (start.repeat(rows, 1), start.repeat(rows, 1))
        self.outputs = (start.new_zeros(rows, 1, chunk), start.new_zeros(rows, 1, chunk))

        def way(origin: int) -> Callable[[], None]:
            return lambda: launch(
                self.x,
                self.voice,
                self.states[origin],
                self.outputs[origin],
                self.states[1 - origin],
            )

        self.replays = tuple(record(way(origin)) for origin in (0, 1))
        self.put(start)  # what was run in order to record has left its traces

    @property
    def state(self) -> Tensor:
        """The packed state (B, S) after the last chunk; the chunk after the next one overwrites
        it."""
        return self.states[self.turn]

    @torch.inference_mode()
    def put(self, state: Tensor) -> None:
        """Goes on from another packed state, (B, S) or (1, S) for every row alike."""
        self.state.copy_(state.expand_as(self.state))

    @torch.inference_mode()
    def __call__(self, x: Tensor, voice: Tensor) -> Tensor:
        """x (B, 1, N) and voice (B, V) -> y (B, 1, N), which the chunk after the next one
        overwrites.

        Raises:
            EngineError: for other shapes.
        """
        if x.shape != self.x.shape or voice.shape != self.voice.shape:
            raise EngineError(
                f"expected x {tuple(self.x.shape)} and voice {tuple(self.voice.shape)}, got"
                f" {tuple(x.shape)} and {tuple(voice.shape)}: this stream was recorded for them"
            )
        self.x.copy_(x, non_blocking=True)
        self.voice.copy_(voice, non_blocking=True)
        self.replays[self.turn]()
        y = self.outputs[self.turn]
        self.turn = 1 - self.turn
        return y


class Lanes:
    """`PingPong`s by their number of rows, the few used last; safe steps on any state, by copying
    it in and out."""

    def __init__(self, make: Callable[[int], PingPong], most: int = 12) -> None:
        self.make, self.most = make, most
        self.kept: dict[int, PingPong] = {}

    def lane(self, rows: int) -> PingPong:
        """The one for so many rows; made, and an old one dropped, if need be."""
        lane = self.kept.pop(rows, None) or self.make(rows)
        while len(self.kept) >= self.most:
            self.kept.pop(next(iter(self.kept)))
        self.kept[rows] = lane
        return lane

    @torch.inference_mode()
    def step(self, x: Tensor, voice: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, 1, N), voice (B, V), state (B, S) -> y (B, 1, N) and the next state (B, S), both
        the caller's to keep."""
        lane = self.lane(len(x))
        lane.put(state)
        return lane(x, voice).clone(), lane.state.clone()
