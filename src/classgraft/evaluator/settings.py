"""Settings: everything but methods and seeds that a benchmark's numbers depend on; those of papers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from classgraft.errors import InputError, nearest
from classgraft.evaluator.expected import Expected
from classgraft.evaluator.orders import Order
from classgraft.evaluator.protocols import Domains, Equal, Protocol, Split
from classgraft.evaluator.start import Start
from classgraft.training.exemplars import Unit
from classgraft.training.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """A protocol on data, with network and recipe."""

    protocol: Protocol
    images: str = ""
    """Where the training images are; empty: to be given."""
    test: str = ""
    size: int = 32
    """Side of the squares, in pixels."""
    start: Start = Start()
    orders: tuple[Order, ...] = (1993,)
    recipe: Recipe = Recipe()
    """Of every method that has one."""
    exemplars: int | None = None
    """Images that methods with a field ``exemplars`` may keep; each method's own: None."""
    unit: Unit = "images"
    """What ``exemplars`` counts."""
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields that methods of the catalogue have in this setting, by the method's name."""
    expected: tuple[Expected, ...] = ()
    """What is known to come out; looked at where nothing of the setting was changed."""


CIFAR = Recipe(epochs=170, batch_size=128, lr=0.1, weight_decay=5e-4, milestones=(100 / 170, 120 / 170))
"""Of the code of Yan, Xie, He: DER, CVPR 2021, arXiv 2103.16788, less its warm-up of the rate."""
IMAGENET = Recipe(
    epochs=90, batch_size=128, lr=0.1, weight_decay=1e-4, milestones=(1 / 3, 2 / 3), augment="resized-crop-flip"
)
"""Of Hou, Pan, Loy, Wang, Lin: LUCIR, CVPR 2019, section 4.1."""
DER_CIFAR = replace(CIFAR, milestones=(110 / 170, 130 / 170))
"""Of the same code, whose milestones count from the end of ten epochs of warm-up."""
DER_IMAGENET = replace(
    IMAGENET, epochs=220, batch_size=256, weight_decay=5e-4, milestones=(80 / 220, 140 / 220, 180 / 220, 200 / 220)
)
"""Likewise, of twenty epochs of warm-up."""
MNIST = Recipe(epochs=5, batch_size=128, lr=0.01, weight_decay=0.0, milestones=(), augment="none")
FEW = (60, *[5] * 8)

_CIFAR = Setting(
    Equal(10, 10, 100),
    "torchvision:CIFAR100,root=data,split=train",
    "torchvision:CIFAR100,root=data,split=test",
    recipe=CIFAR,
    exemplars=2000,
)
_IMAGENET = Setting(
    Equal(100, 100, 1000),
    "hf:ILSVRC/imagenet-1k,split=train",
    "hf:ILSVRC/imagenet-1k,split=validation",
    size=224,
    start=Start("timm:resnet18"),
    recipe=IMAGENET,
    exemplars=20_000,
)
_MNIST = Setting(
    Domains("permuted"),
    "torchvision:MNIST,root=data,split=train",
    "torchvision:MNIST,root=data,split=test",
    recipe=MNIST,
)

_DER = replace(
    _CIFAR,
    start=Start("cifar:resnet18"),
    orders=("podnet-1", "podnet-2", "podnet-3"),
    recipe=DER_CIFAR,
    methods={"der": {"balancing": 30 / 170}},
)
_DER_IMAGENET = replace(
    _IMAGENET, recipe=DER_IMAGENET, exemplars=2000, methods={"der": {"balancing": 30 / 220, "temperature": 1.0}}
)
_YAN = "Yan, Xie, He: DER, CVPR 2021, without pruning; per-step results in the authors' repository"
_DOUILLARD = "Yan, Xie, He: DER, CVPR 2021, without pruning, as Douillard and others: DyTox, CVPR 2022, quote it"


def _of_der(average: float, last: float, within: float, source: str = _YAN) -> tuple[Expected, ...]:
    """In per cent, as printed."""
    return (Expected("der", average / 100, last / 100, within / 100, source),)


DER_B0 = {5: (76.80, 68.72), 10: (75.36, 65.22), 20: (74.09, 62.49), 50: (72.41, 59.08)}
"""Average and last accuracy of DER without pruning on CIFAR-100, by the number of steps; a ResNet-18, three orders. Two
standard deviations over these are 0.7 points (at ten steps)."""
DER_B50 = {2: (74.61, 68.44), 5: (73.21, 66.26), 10: (72.81, 65.64)}
"""The same, half of the classes in a first step more."""

NAMED: dict[str, Setting] = {
    **{f"cifar100-b0-{n}": replace(_CIFAR, protocol=Equal(100 // n, 100 // n, 100)) for n in (5, 10, 20, 50)},
    **{f"cifar100-b50-{n}": replace(_CIFAR, protocol=Equal(50, 50 // n, 100)) for n in (2, 5, 10)},
    # DER's own orders, and network but for its last batch norms, which start from 0 there; the authors' first step of
    # B50 is 200 epochs, and they change the brightness as well
    **{f"cifar100-der-b0-{n}": replace(_DER, protocol=Equal(100 // n, 100 // n, 100), expected=_of_der(*known, 0.7))
       for n, known in DER_B0.items()},
    **{f"cifar100-der-b50-{n}": replace(_DER, protocol=Equal(50, 50 // n, 100), exemplars=20, unit="images a class",
                                        expected=_of_der(*known, 0.7)) for n, known in DER_B50.items()},
    # steps, orders and memory of PODNet's authors, whose recipe is another: 160 epochs whose rate falls along a cosine
    "cifar100-podnet-b50-5": replace(
        _CIFAR, protocol=Equal(50, 10, 100), orders=("podnet-1", "podnet-2", "podnet-3"), exemplars=20,
        unit="images a class",
    ),
    "cifar100-few-shot": replace(_CIFAR, protocol=Split(FEW, shots=5)),
    "cifar100-blurry-10": replace(_CIFAR, protocol=Equal(10, 10, 100, blur=0.1)),
    # the usual ImageNet-100 is the first hundred classes of this order of all thousand
    "imagenet100-b0-10": replace(_IMAGENET, protocol=Equal(10, 10, 100), exemplars=2000),
    "imagenet100-b50-5": replace(_IMAGENET, protocol=Equal(50, 10, 100), exemplars=2000),
    "imagenet100-b50-10": replace(_IMAGENET, protocol=Equal(50, 5, 100), exemplars=2000),
    # on timm's ResNet-18; the authors' has its activations before the convolutions (b0) or a stem of stride 1 (b50)
    "imagenet100-der-b0-10": replace(
        _DER_IMAGENET, protocol=Equal(10, 10, 100), expected=_of_der(77.18, 66.70, 1.5, _DOUILLARD)
    ),
    "imagenet100-der-b50-10": replace(
        _DER_IMAGENET, protocol=Equal(50, 5, 100), exemplars=20, unit="images a class",
        expected=_of_der(78.19, 72.92, 1.5),
    ),
    "imagenet1000-b0-10": replace(_IMAGENET, protocol=Equal(100, 100, 1000)),
    "imagenet1000-b500-5": replace(_IMAGENET, protocol=Equal(500, 100, 1000)),
    "split-mnist": replace(_MNIST, protocol=Equal(2, 2, 10), orders=("given",)),
    "permuted-mnist": _MNIST,
    "rotated-mnist": replace(_MNIST, protocol=Domains("rotated")),
}  # fmt: skip
"""B0-N: all classes in N equal steps; B50-N: half of them first, the rest in N steps. Images of one's own may be given
instead of the ones named, which torchvision looks for in the folder ``data``."""


def named(name: str) -> Setting:
    if name not in NAMED:
        raise InputError(f"There is no protocol '{name}'.{nearest(name, NAMED)}")
    return NAMED[name]
