"""Residual networks without the channels that were found to be of no use: smaller, faster, and in the same form."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.channels import IMAGES, Layer, Plan, plan
from classgraft.models.cifar_resnet import Padded
from classgraft.models.structure import Structure, with_part


class Gathered(nn.Module):
    """A shortcut without weights between channels of which some are gone: each looks up where it came from."""

    def __init__(self, outside: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.places: Tensor
        self.register_buffer("places", torch.zeros(outside, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """``places`` of the channels of x; one more place is zeros."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, 1)).index_select(1, self.places)


class Pruned(Structure):
    """A network with these widths of its groups of channels (``classgraft.models.channels.plan``).

    Which of the original channels it has is in the buffers ``kept_GROUP``.
    """

    kind = "pruned"

    def __init__(self, inner: Sequence[nn.Module], **widths: int) -> None:
        """``inner``: the network at full width, which is narrowed in place; the narrow layers have no values yet.

        Raises:
            InputError: it is a network whose channels are not known here, or the widths are none of its.
        """
        super().__init__()
        (network,) = inner
        self.plan = plan(network)
        for group in {*self.plan.groups, *widths}:
            if not 1 <= widths.get(group, 0) <= self.plan.widths.get(group, 0):
                raise InputError(
                    f"it states {widths.get(group, 0)} channels of '{group}' where the network has"
                    f" {self.plan.widths.get(group, 0)}."
                )
        self.widths = {group: widths[group] for group in self.plan.groups}
        self.network = _resized(network, self.plan, {IMAGES: self.plan.widths[IMAGES], **widths})
        for name, _, outside in self.plan.padded:
            stride = network.get_submodule(name).stride
            with_part(network, name, Gathered(widths[outside], stride))  # type: ignore[arg-type]
        for group, width in self.widths.items():
            self.register_buffer(f"kept_{group}", torch.zeros(width, dtype=torch.int64))
        self.to(next(network.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)  # type: ignore[no-any-return]

    @property
    def inner(self) -> Sequence[nn.Module]:
        return (self.network,)

    @property
    def settings(self) -> dict[str, int]:
        return self.widths

    @property
    def kept(self) -> dict[str, Tensor]:
        """Of each group, the places among the original channels of those that are left."""
        device = next(self.parameters()).device
        kept = {group: self.get_buffer(f"kept_{group}") for group in self.plan.groups}
        return {IMAGES: torch.arange(self.plan.widths[IMAGES], device=device), **kept}

    def before(self) -> nn.Module:
        return self.widened(0)

    @torch.no_grad()
    def widened(self, seed: int) -> nn.Module:
        """A network at full width that gives this one's features at their places, until it learns.

        The channels that come back start with fresh weights by the seed (He and others, arXiv 1502.01852), and the layers that
        write what is there already read nothing of them yet, though they can learn to. Shortcuts without weights carry what
        comes back all the same: with those (option A) the features are near this one's, no more.
        """
        network = _resized(copy.deepcopy(self.network), self.plan, self.plan.widths)
        generator, kept = torch.Generator().manual_seed(seed), self.kept
        for layer in self.plan.layers:
            conv, norm = _parts(network, layer)
            inside, outside = (kept[group] for group in (layer.inside, layer.outside))
            fresh = torch.empty(conv.weight.shape)
            nn.init.kaiming_normal_(fresh, generator=generator)
            conv.weight.copy_(fresh)
            conv.weight[outside] = 0
            mine, its = _parts(self.network, layer)
            conv.weight[outside[:, None], inside] = mine.weight
            for name, value in its.state_dict().items():
                if value.ndim:
                    norm.state_dict()[name][outside] = value
                else:
                    norm.state_dict()[name].copy_(value)
        for name, inside_, outside_ in self.plan.padded:
            stride = int(self.network.get_submodule(name).stride)  # type: ignore[arg-type]
            with_part(network, name, Padded(self.plan.widths[inside_], self.plan.widths[outside_], stride))
        return network.train(self.training)


@torch.no_grad()
def pruned(body: nn.Module, kept: Mapping[str, Tensor]) -> Pruned:
    """A copy of a network with these channels of each group alone.

    Args:
        body: at full width, left as it is.
        kept: by group, places among its channels, in order, one at least.
    """
    found = Pruned([copy.deepcopy(body)], **{group: len(places) for group, places in kept.items()})
    kept = {**found.kept, **kept}
    for group in found.plan.groups:
        found.get_buffer(f"kept_{group}").copy_(kept[group])
    for layer in found.plan.layers:
        (conv, norm), (wide, its) = _parts(found.network, layer), _parts(body, layer)
        conv.weight.copy_(wide.weight[kept[layer.outside]][:, kept[layer.inside]])
        for name, value in its.state_dict().items():
            norm.state_dict()[name].copy_(value[kept[layer.outside]] if value.ndim else value)
    for name, inside, outside in found.plan.padded:
        shortcut = body.get_submodule(name)
        assert isinstance(shortcut, Padded)
        place = torch.full((shortcut.outside,), len(kept[inside]), device=kept[inside].device)  # of zeros
        place[kept[inside] + shortcut.before] = torch.arange(len(kept[inside]), device=place.device)
        found.get_buffer(f"network.{name}.places").copy_(place[kept[outside]])
    return found.train(body.training)


def _parts(network: nn.Module, layer: Layer) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv, norm = network.get_submodule(layer.conv), network.get_submodule(layer.norm)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def _resized(network: nn.Module, plan: Plan, widths: Mapping[str, int]) -> nn.Module:
    """The network, in place, with layers of these widths in the place of its own; convolutions have no values yet."""
    for layer in plan.layers:
        conv, norm = _parts(network, layer)
        like: dict[str, Any] = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        made = nn.utils.skip_init(
            nn.Conv2d,
            widths[layer.inside],
            widths[layer.outside],
            *shape,
            bias=False,
            padding_mode=conv.padding_mode,
            **like,
        )
        with_part(network, layer.conv, made.train(conv.training))
        fresh = nn.BatchNorm2d(widths[layer.outside], norm.eps, norm.momentum, **like)
        with_part(network, layer.norm, fresh.train(norm.training))
    return network
