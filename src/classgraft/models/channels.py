"""The channels of a residual network that can be closed, and soft masks over them while it learns.

Channels come in groups that are kept or closed together. What a block computes inside is a group of its own. Everything
that is added together is one group: the outputs of a stage's blocks and what their shortcuts carry, for a channel that
one of them still writes cannot be taken out of the others. The masks are those of Serrà, Surís, Miron, Karatzoglou:
Overcoming Catastrophic Forgetting with Hard Attention to the Task (HAT), ICML 2018, arXiv 1801.01423, as adapted by Yan,
Xie, He: DER, CVPR 2021, arXiv 2103.16788.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.cifar_resnet import Block, CifarResNet, Padded
from classgraft.models.structure import with_part

IMAGES = "images"
"""The group of a network's input, which stays as it is."""
START = 2.0
"""The numbers behind the masks start evenly between 0 and this: every channel is open, and the pull of a sparsity loss, which
is the same for all channels of a group, closes them one after the other and not all at once."""
FLOOR = 0.1
"""The number behind the mask of a group's strongest channel is at least this, so that no layer closes altogether."""


@dataclass(frozen=True)
class Layer:
    """A convolution and the batch norm after it, by their dotted names."""

    conv: str
    norm: str
    inside: str
    """The group that it reads."""
    outside: str
    """The group that it writes."""
    area: int
    """K_l, places of its kernel."""


@dataclass(frozen=True)
class Plan:
    """Which layers read and write which groups of channels."""

    layers: tuple[Layer, ...]
    padded: tuple[tuple[str, str, str], ...]
    """Shortcuts without weights between two groups: name, group inside, group outside."""
    widths: Mapping[str, int]
    """Channels of each group, ``IMAGES`` among them."""
    last: str
    """The group that leaves the network as features."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Those that can be narrowed."""
        return tuple(group for group in self.widths if group != IMAGES)


def plan(body: nn.Module) -> Plan:
    """The groups of a CIFAR ResNet or of one of timm's ResNets of basic blocks (resnet18, resnet34), without its head.

    Raises:
        InputError: it is another network.
    """
    layers: list[Layer] = []
    padded: list[tuple[str, str, str]] = []
    widths: dict[str, int] = {}

    def add(name: str, norm: str, inside: str, outside: str) -> None:
        conv = body.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        layers.append(Layer(name, norm, inside, outside, conv.kernel_size[0] * conv.kernel_size[1]))
        widths.setdefault(inside, conv.in_channels)
        widths.setdefault(outside, conv.out_channels)

    stages, shortcut = _stages(body)
    add("conv1", "bn1", IMAGES, stream := "stem")
    for stage, blocks in stages.items():
        for i, block in enumerate(blocks):
            place, inside, around = f"{stage}.{i}", f"{stage}_{i}", getattr(block, shortcut)
            changes = isinstance(around, Padded) or (isinstance(around, nn.Sequential) and len(around) > 0)
            after = stage if changes else stream  # what is added to the stream is of its group
            add(f"{place}.conv1", f"{place}.bn1", stream, inside)
            add(f"{place}.conv2", f"{place}.bn2", inside, after)
            if isinstance(around, Padded):
                padded.append((f"{place}.{shortcut}", stream, after))
            elif changes:
                add(f"{place}.{shortcut}.0", f"{place}.{shortcut}.1", stream, after)
            stream = after
    return Plan(tuple(layers), tuple(padded), widths, stream)


def _stages(body: nn.Module) -> tuple[dict[str, list[nn.Module]], str]:
    """The blocks of each stage, and what their shortcut is called."""
    from timm.models.resnet import BasicBlock, ResNet

    found, word = {}, "shortcut"
    if isinstance(body, CifarResNet):
        found = {f"layer{s}": list(getattr(body, f"layer{s}")) for s in range(1, body.stages + 1)}
        fits = all(type(block) is Block for blocks in found.values() for block in blocks)
    elif fits := isinstance(body, ResNet):
        found, word = {f"layer{s}": list(getattr(body, f"layer{s}")) for s in range(1, 5)}, "downsample"
        fits = all(_is_basic(block, BasicBlock) for blocks in found.values() for block in blocks)
        fits = fits and _are_plain(body.conv1, body.bn1) and isinstance(body.maxpool, nn.MaxPool2d | nn.Identity)
        fits = fits and body.global_pool.feat_mult() == 1
    if not fits:
        raise InputError(
            f"Channel masks and pruning are for CIFAR ResNets and timm's resnet18 and resnet34, and {type(body).__name__}"
            " is none of these; leave masks off, or start from one of them."
        )
    return found, word


def _is_basic(block: nn.Module, kind: type) -> bool:
    around = getattr(block, "downsample", None)
    return (
        type(block) is kind
        and block.se is None
        and isinstance(block.aa, nn.Identity | None)
        and _are_plain(block.conv1, block.bn1, block.conv2, block.bn2)
        and (around is None or (len(around) == 2 and _are_plain(*around)))
    )


def _are_plain(*parts: nn.Module) -> bool:
    """Convolutions in one piece and without bias, and batch norms."""
    return all(
        (isinstance(part, nn.Conv2d) and part.groups == 1 and part.bias is None) or isinstance(part, nn.BatchNorm2d)
        for part in parts
    )


def soft_mask(scores: Tensor, scale: float, compensated: bool) -> Tensor:
    """m = sigmoid(s e) of a group's channels (C,), the strongest of them never closed.

    Args:
        scores: e (C,).
        scale: s, from nearly 0 (every channel half open) to large (open or closed).
        compensated: the gradient with respect to e is that of sigmoid(e): the factor s sigmoid'(s e) / sigmoid'(e), which
            is in turn huge and nothing as s grows, is taken out of it.
    """
    strongest = F.one_hot(scores.argmax(), len(scores)).bool()
    raised = torch.where(strongest, scores.clamp(min=FLOOR), scores)
    sharp = (scale * raised).sigmoid()
    if not compensated:
        return sharp
    smooth = raised.sigmoid()
    return smooth + (sharp - smooth).detach()


class Gate(nn.Module):
    """The numbers behind a group's mask; the mask itself while a batch passes."""

    mask: Tensor | None

    def __init__(self, channels: int, draw: torch.Generator) -> None:
        super().__init__()
        self.scores = nn.Parameter(START * torch.rand(channels, generator=draw))
        self.mask = None


class Gated(nn.Module):
    """A part whose channels are multiplied by a group's mask."""

    def __init__(self, part: nn.Module, gate: Gate) -> None:
        super().__init__()
        self.part, self.gate = part, gate

    def forward(self, x: Tensor) -> Tensor:
        found = self.part(x)
        assert self.gate.mask is not None
        return found * self.gate.mask.to(found.dtype)[:, None, None]  # type: ignore[no-any-return]


class Masked(nn.Module):
    """A network that learns with a mask on every group of its channels.

    Every summand of a stage is masked once: each block's second batch norm, what a shortcut projects or pads, and the stem.
    What an identity carries is masked already. So a channel whose mask is 0 is 0 wherever the network reads it.
    """

    def __init__(self, body: nn.Module, seed: int = 0) -> None:
        """A copy of the body, every channel open; ``seed`` says which are the first to close where all are of one use.

        Raises:
            InputError: it is a network whose channels are not known here.
        """
        super().__init__()
        self.plan, self.network = plan(body), copy.deepcopy(body)
        device, draw = next(body.parameters()).device, torch.Generator().manual_seed(seed)
        gates = {group: Gate(self.plan.widths[group], draw).to(device) for group in self.plan.groups}
        self.gates = nn.ModuleDict(gates)
        places = [(layer.norm, layer.outside) for layer in self.plan.layers]
        for name, group in places + [(name, outside) for name, _, outside in self.plan.padded]:
            with_part(self.network, name, Gated(self.network.get_submodule(name), gates[group]))

    def forward(self, images: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Images (B, C, H, W) and the groups' masks to features (B, D)."""
        for group, gate in self._gates():
            gate.mask = masks[group]
        features: Tensor = self.network(images)
        for _, gate in self._gates():
            gate.mask = None
        return features

    def masks(self, scale: float, compensated: bool = True) -> dict[str, Tensor]:
        """By group, as of ``soft_mask``; of the images' channels ones."""
        found = {group: soft_mask(gate.scores, scale, compensated) for group, gate in self._gates()}
        return {IMAGES: torch.ones_like(found["stem"][:1]).expand(self.plan.widths[IMAGES]), **found}

    def layers(self, masks: Mapping[str, Tensor]) -> tuple[list[int], list[Tensor], list[Tensor]]:
        """Of every convolution the area of its kernel, the mask of what it reads and the mask of what it writes."""
        layers = self.plan.layers
        areas = [layer.area for layer in layers]
        return areas, [masks[layer.inside] for layer in layers], [masks[layer.outside] for layer in layers]

    @torch.no_grad()
    def kept(self) -> dict[str, Tensor]:
        """The channels of each group that stay when s grows without end, in order: those with e above 0, one at least."""
        found = {}
        for group, gate in self._gates():
            open_ = gate.scores > 0
            open_[gate.scores.argmax()] = True
            found[group] = torch.nonzero(open_)[:, 0]
        return found

    def plain(self) -> nn.Module:
        """A copy of the network without masks."""
        network = copy.deepcopy(self.network)
        gated = [(name, part.part) for name, part in network.named_modules() if isinstance(part, Gated)]
        for name, part in gated:
            with_part(network, name, part)
        return network

    def _gates(self) -> Iterator[tuple[str, Gate]]:
        for group, gate in self.gates.items():
            assert isinstance(gate, Gate)
            yield group, gate
