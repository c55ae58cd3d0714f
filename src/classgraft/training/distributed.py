"""Several processes that train one model: batches in shards, and averages over them. Started by ``torchrun``.

Gradients are averaged explicitly after backward, which is right for any objective; a wrapper around the module never
sees the calls that go round it. Weights are the shares of the batch, so for mean losses the average is the gradient of
the whole batch. Batch norm normalises each shard by itself, and its running statistics are averaged too: the oracle is
one process that computes the same shards in turn and averages them.

Processes must see the same files: the run folder and the images.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among all that work together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def share(self, index: Tensor) -> tuple[Tensor, float]:
        """This process's part of a batch's places (B,) and its weight; a batch too small for all is done by all."""
        if self.size == 1:
            return index, 1.0
        if len(index) < 2 * self.size:
            return index, 1 / self.size
        mine = index.tensor_split(self.size)[self.rank]
        return mine, len(mine) / len(index)


def world() -> World:
    """Joins the processes that ``torchrun`` started on first use; alone without it."""
    if "TORCHELASTIC_RUN_ID" in os.environ and not dist.is_initialized():
        if torch.cuda.is_available():  # what is gathered goes by way of the current device
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)
    if not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@torch.no_grad()
def average(parameters: Sequence[Tensor], others: Iterable[Tensor], share: float) -> None:
    """Replace the parameters' gradients and the ``others`` by their means over processes, weighted by ``share``.

    A gradient that only some processes have counts as zero in the rest; one that none has stays None.
    """
    if world().size == 1:
        return
    others = [tensor for tensor in others if tensor.is_floating_point()]
    device = parameters[0].device
    owns = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    given = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([owns, *(share * tensor.float().reshape(-1) for tensor in (*given, *others))])
    dist.all_reduce(flat)
    owned, flat = flat[: len(owns)].tolist(), flat[len(owns) :]
    parts = flat.split([tensor.numel() for tensor in (*given, *others)])
    for parameter, gradient, part, count in zip(parameters, given, parts, owned, strict=False):
        if count:
            parameter.grad = gradient.copy_(part.view_as(gradient))
    for tensor, part in zip(others, parts[len(given) :], strict=True):
        tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def agree(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values: fresh rows may have been drawn differently."""
    if world().size > 1:
        for tensor in tensors:
            held = tensor.contiguous()
            dist.broadcast(held, 0)
            tensor.copy_(held)


def gathered(mine: Tensor) -> list[Tensor]:
    """Every process's tensor, in order of rank; they differ in their first dimension at most."""
    if world().size == 1:
        return [mine]
    found: list[Tensor | None] = [None] * world().size
    dist.all_gather_object(found, mine.cpu())
    return [tensor for tensor in found if tensor is not None]


def of_all(mine: Tensor) -> Tensor:
    """The rows of every process, in order of rank, where this one's are."""
    return torch.cat(gathered(mine)).to(mine.device) if world().size > 1 else mine
