"""Free kernels and those in use: how a task learns under gates, and what is frozen afterwards.

Abati and others: Conditional Channel Gated Networks for Task-Aware Continual Learning, CVPR 2020, arXiv 2004.00070.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classgraft.models.gated import OPEN, Gate, Gated, Lane, convolutions


class Learning(nn.Module):
    """A network through a lane that learns, and with it the network's free kernels; those in use stay where they are."""

    def __init__(self, body: nn.Module, lane: Lane, used: Sequence[Tensor]) -> None:
        """``body`` and ``lane`` learn in place; ``used`` as of ``Gated.used``."""
        super().__init__()
        self.kept = copy.deepcopy(body).eval().requires_grad_(False)
        self.body, self.lane, self.used = body.eval().requires_grad_(False), lane, list(used)
        self.free = not all(bool(kernels.all()) for kernels in used)
        for conv in convolutions(body):
            conv.requires_grad_(self.free)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, C, H, W) to features (B, D) and each convolution's gates (B, C)."""
        weights = either(self.used, self.kept, self.body) if self.free else {}
        return self.lane(self.body, images, weights)  # type: ignore[no-any-return]


def either(kernels: Sequence[Tensor], first: nn.Module, second: nn.Module) -> dict[str, Tensor]:
    """The convolutions' tensors by name: these kernels (C,) of the first network, the others of the second, a like one."""
    found, names = {}, {part: name for name, part in first.named_modules()}
    for chosen, one, other in zip(kernels, convolutions(first), convolutions(second), strict=True):
        for (key, tensor), instead in zip(one.named_parameters(), other.parameters(), strict=True):
            rows = chosen.view(-1, *[1] * (tensor.ndim - 1))
            found[f"{names[one]}.{key}".lstrip(".")] = torch.where(rows, tensor, instead)
    return found


def gated(body: nn.Module, bare: bool) -> Gated:
    """A copy under which lanes can be laid; ``bare`` counts where it is not gated yet."""
    return copy.deepcopy(body) if isinstance(body, Gated) else Gated([copy.deepcopy(body)], bare, 0)


@torch.no_grad()
def started(body: nn.Module, device: torch.device, temperature: float, seed: int) -> Lane:
    """A lane for this network whose gates are mostly open and whose norms are copies of the network's."""
    lane, generator = Lane(body), torch.Generator().manual_seed(seed)
    for gate in lane.gates:
        assert isinstance(gate, Gate)
        gate.temperature = temperature
        nn.init.kaiming_normal_(gate.first.weight, generator=generator)
        nn.init.kaiming_normal_(gate.last.weight, generator=generator)
        nn.init.zeros_(gate.first.bias)
        nn.init.constant_(gate.last.bias, OPEN)
    return lane.to(device).requires_grad_(True)


@torch.no_grad()
def settled(before: Gated, learnt: Learning, fired: Tensor, seed: int) -> Gated:
    """``before`` with the lane that has been learnt; its kernels are in use now, and those of no task are drawn anew.

    Args:
        before: changed in place.
        learnt: on a copy of its network.
        fired: for the kernels of all convolutions, one after the other (sum of C,), whether they opened for some image.
        seed: of the kernels that are drawn.
    """
    generator, used = torch.Generator().manual_seed(seed), before.used
    opened = fired.to(used[0].device).split([len(kernels) for kernels in used])
    fresh = copy.deepcopy(before.body)
    for conv in convolutions(fresh):
        drawn = torch.empty(conv.weight.shape)
        nn.init.kaiming_normal_(drawn, generator=generator)
        conv.weight.copy_(drawn)
        if conv.bias is not None:
            conv.bias.zero_()
    for gate, own in zip(learnt.lane.gates, opened, strict=True):
        gate.fired.copy_(own)  # type: ignore[operator]
    for name, tensor in either(opened, learnt.body, fresh).items():
        fresh.get_parameter(name).copy_(tensor)
    for name, tensor in either(used, learnt.kept, fresh).items():
        before.body.get_parameter(name).copy_(tensor)
    before.lanes.append(learnt.lane.eval())
    return before.eval()
