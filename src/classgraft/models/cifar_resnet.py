"""Residual networks for 32-pixel images.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385, section 4.2: ResNet-20 to
-56 with 16, 32 and 64 channels and parameter-free shortcuts (option A: subsample and pad with zeros), and by the same rule
ResNet-8 and -14, the students of papers on distillation. ResNet-18 is the form that continual-learning papers use on CIFAR:
the ImageNet network with a 3x3 stem and no pooling before the stages. Keys are those of the widespread public checkpoints
(``layer1.0.conv1.weight`` ...), so those load as they are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Padded(nn.Module):
    """A shortcut without weights (option A): every so many places, and channels of zeros on both sides."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.inside, self.outside, self.stride = inside, outside, stride

    @property
    def before(self) -> int:
        """Channels of zeros before the first: channel c goes to ``before`` + c."""
        return (self.outside - self.inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        after = self.outside - self.inside - self.before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, after))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut around them."""

    def __init__(self, inside: int, outside: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Sequential()
        if projection and (stride != 1 or inside != outside):
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        elif inside != outside:
            self.shortcut = Padded(inside, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Stem, stages that halve the resolution from the second on, mean over positions, linear head."""

    def __init__(self, blocks: tuple[int, ...], widths: tuple[int, ...], projection: bool, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inside = widths[0]
        for stage, (depth, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = []
            for i in range(depth):
                layers.append(Block(inside, width, 2 if stage > 1 and i == 0 else 1, projection))
                inside = width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.num_features = inside
        self.linear = nn.Linear(inside, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


DEPTHS = {"resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}
NAMES = (*DEPTHS, "resnet18")


def build(name: str, num_classes: int) -> CifarResNet:
    """One of ``NAMES``."""
    if name == "resnet18":
        return CifarResNet((2, 2, 2, 2), (64, 128, 256, 512), projection=True, num_classes=num_classes)
    depth = DEPTHS[name]
    return CifarResNet((depth, depth, depth), (16, 32, 64), projection=False, num_classes=num_classes)
