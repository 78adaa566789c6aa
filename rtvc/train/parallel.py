"""Data-parallel training under `torchrun`: the same weights everywhere, gradients averaged before
each optimizer step.

Gradients are averaged here, in one flat buffer a phase, rather than by wrapping modules: a stage is
free to call any method of any of its modules in any order, in several phases, which hooks on
`forward` do not allow.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rtvc.errors import ConfigError


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces each gradient by its mean over the ranks; a missing one counts as zero if any
        rank has it."""
        if self.size == 1:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        dist.all_reduce(has)
        used = [p for p, count in zip(parameters, has.tolist(), strict=True) if count]
        if not used:
            return
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in used]
        )
        dist.all_reduce(flat)
        flat /= self.size
        for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def share(self, modules: Iterable[nn.Module]) -> None:
        """Gives every rank the first rank's weights and buffers."""
        if self.size == 1:
            return
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def share_buffers(self, modules: Iterable[nn.Module]) -> None:
        """Gives every rank the first rank's floating-point buffers (running statistics, power
        iterations)."""
        if self.size == 1:
            return
        buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
        if not buffers:
            return
        flat = torch.cat([b.flatten().float() for b in buffers])
        dist.broadcast(flat, 0)
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the ranks."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value)
        return bool(value.item() > 0)

    def close(self) -> None:
        """Leaves the process group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: str) -> World:
    """The process group that `torchrun` describes in the environment, or this process alone.

    Raises:
        ConfigError: CUDA is asked for and there is none, or the device is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device = {device!r}: auto, cpu or cuda is wanted")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device = 'cuda', but torch sees no CUDA device: use device = 'cpu', or install a CUDA"
            " build of torch"
        )
    cuda = device != "cpu" and torch.cuda.is_available()
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    here = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if cuda
        else torch.device("cpu")
    )
    if cuda:
        torch.cuda.set_device(here)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return World(rank, size, here)
