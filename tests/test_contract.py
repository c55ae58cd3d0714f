"""What every method promises (docs/architecture.md), checked by walking the catalogue.

A new method is tested here as soon as it is in the catalogue; it needs its fields in ``ALTERNATIVES`` and, if its
defaults take long, smaller ones in ``SMALL``.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from classgraft import catalogue
from classgraft.data.images import Images, Task, joined
from classgraft.data.keypoints import Poses
from classgraft.data.scenes import Scenes
from classgraft.errors import InputError
from classgraft.models.cifar_resnet import CifarResNet
from classgraft.models.classifier import Classifier, Head
from classgraft.models.cut import headless
from classgraft.models.keypoints import Locator, Watcher
from classgraft.models.preparation import Preparation
from classgraft.models.segmenter import Segmenter
from classgraft.packing import Packed, packed, unpacked, without, words
from classgraft.training import generative, latent, loop
from classgraft.training import unlabelled as self_training
from classgraft.training.recipe import Recipe
from classgraft.verbs import Distiller, Extender, SelfTrainer

OLD, NEW, LATER = ("ant", "bee", "cow", "dog"), ("elk", "fox"), ("gnu",)
PREPARATION = Preparation(12, 14, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

EXTENDERS = [entry.name for entry in catalogue.ENTRIES if entry.verb == "extend"]
TRAINERS = [entry.name for entry in catalogue.ENTRIES if entry.verb == "train"]
SELF_TRAINERS = [entry.name for entry in catalogue.ENTRIES if entry.verb == "self-train"]
DISTILLERS = [entry.name for entry in catalogue.ENTRIES if entry.verb == "distill" and entry.targets != "boxes"]
"""Those of detectors are held to the same by test_detection.py."""
SEGMENTERS = {entry.name for entry in catalogue.ENTRIES if entry.targets == "masks"}
"""Distillers of networks that label every pixel."""
POINTERS = {entry.name for entry in catalogue.ENTRIES if entry.targets == "keypoints"}
"""Methods of networks that find keypoints."""
FROZEN = ["glne", "glne-literal", "imprint", "rows"]
"""Methods that promise the old logits bit for bit."""
STATISTICS = ["ncm", "slda", "fecam", "ranpac", "knn"]
"""Methods that make a new head from statistics of every class, on a frozen body."""
ABOVE = ["acwod"]
"""Methods that move the body, but not its first layer."""
BODY_ADDED = {"der"}
"""Methods that leave the body alone and put another beside it."""
MASKS = ["piggyback", "gates"]
"""Methods whose earlier tasks keep their logits bit for bit under a body that grows around the old one."""
HEAD_ALONE = {"soft-distillation"}
"""Methods that leave the body alone and move the old rows."""
WITHOUT_TERMS = {"imprint", *STATISTICS}
"""Methods in closed form: nothing descends."""

FEW_EPOCHS = {"epochs": 3, "batch_size": 4, "optimiser": "sgd", "milestones": (0.5,), "lr": 0.05}
SMALL: dict[str, dict[str, Any]] = {
    "glne": {"views": 3, "iterations": 15, "drawing": 20},
    "soft-distillation": {"views": 3, "iterations": 15},
    "glne-literal": {"views": 3, "iterations": 15},
    "imprint": {"views": 3},
    "rows": {"views": 3, "steps": 20},
    "finetune": FEW_EPOCHS,
    "lwf": FEW_EPOCHS,
    "lwm": FEW_EPOCHS,
    "ewc": {**FEW_EPOCHS, "strength": 5.0},
    "acwod": FEW_EPOCHS,
    "mas": FEW_EPOCHS,
    "joint": FEW_EPOCHS,
    "generative-replay": {**FEW_EPOCHS, "dimension": 4, "width": 3, "drawing": 30},
    "exemplars": {**FEW_EPOCHS, "exemplars": 12},
    "icarl": {**FEW_EPOCHS, "exemplars": 12},
    "wa": {**FEW_EPOCHS, "exemplars": 12},
    "bic": {**FEW_EPOCHS, "exemplars": 12},
    "podnet": {**FEW_EPOCHS, "lr": 0.2, "exemplars": 12, "proxies": 3},
    "der": {**FEW_EPOCHS, "exemplars": 12},
    "piggyback": {**FEW_EPOCHS, "lr": 0.5, "start": 5.2e-3},
    "gates": {**FEW_EPOCHS, "exemplars": 12},
    "plain": FEW_EPOCHS,
    "cosine": FEW_EPOCHS,
    "glico": {**FEW_EPOCHS, "dimension": 8, "width": 4, "drawing": 30},
    "glico-transductive": {**FEW_EPOCHS, "dimension": 8, "width": 4, "drawing": 30},
    "pseudo-labels": FEW_EPOCHS,
    "mean-teacher": FEW_EPOCHS,
    "fixmatch": {**FEW_EPOCHS, "ratio": 2, "threshold": 0.5},
    "noisy-student": {**FEW_EPOCHS, "generations": 2, "threshold": 0.0},
    "meta-pseudo-labels": {**FEW_EPOCHS, "ratio": 2, "threshold": 0.5, "finishing": 0.5},
    "uda": {**FEW_EPOCHS, "ratio": 2, "threshold": 0.3},
    "mixmatch": FEW_EPOCHS,
    "temporal-ensembling": FEW_EPOCHS,
    "vat": FEW_EPOCHS,
    "ict": FEW_EPOCHS,
    "remixmatch": FEW_EPOCHS,
    "data-distillation": {**FEW_EPOCHS, "views": 3, "threshold": 0.9},
    "data-distillation-keypoints": FEW_EPOCHS,
    "kd": FEW_EPOCHS,
    "fitnets": FEW_EPOCHS,
    "similarity": {**FEW_EPOCHS, "soft": 1.0},
    "structured": {**FEW_EPOCHS, "nodes": 3, "holistic": 1.0, "critic_width": 4, "critic_lr": 0.01},
    "part-experts": {**FEW_EPOCHS, "confidence": 0.0},
    "video-pose": {**FEW_EPOCHS, "confidence": 0.0},
    "ranpac": {"width": 24},
    "knn": {"neighbours": 3},
}
"""Settings that make a method quick here, and every field of it matter."""

RECIPE: dict[str, Any] = {
    "recipe.epochs": 4,
    "recipe.batch_size": 3,
    "recipe.optimiser": "adamw",
    "recipe.lr": 0.02,
    "recipe.momentum": 0.5,
    "recipe.weight_decay": 0.1,
    "recipe.milestones": (0.9,),
    "recipe.augment": "flip",
    "recipe.seed": 1,
}
KEPT: dict[str, Any] = {"exemplars": 8, "unit": "images a class", "herded": False}
DRAWING: dict[str, Any] = {
    "dimension": 6,
    "width": 5,
    "noise": 0.5,
    "strength": 0.3,
    "perceptual": 0.1,
    "side": 8,
    "drawing": 10,
    "drawing_lr": 0.01,
    "reach": 0.1,
    "share": 0.9,
}
ALTERNATIVES: dict[str, dict[str, Any]] = {
    "glne": {
        "views": 4,
        "base": 0.5,
        "confidence": 0.9,
        "prior": 3.0,
        "samples": 5,
        "weight_decay": 0.1,
        "hidden": 1,
        "iterations": 5,
        "memory": "features",
        "covariance": "spherical",
        "components": 2,
        "memory_bytes": 20,
        "drawing": 10,
        "seed": 1,
    },
    "soft-distillation": {
        "strength": 3.0,
        "temperature": 4.0,
        "weight_decay": 0.1,
        "views": 4,
        "iterations": 5,
        "seed": 1,
    },
    "glne-literal": {"alpha": 0.2, "weight_decay": 0.1, "views": 4, "iterations": 5, "seed": 1},
    "imprint": {"views": 1, "seed": 1},
    "rows": {"views": 4, "steps": 21, "lr": 0.01, "weight_decay": 0.1, "seed": 1},
    "finetune": {"statistics": True, **RECIPE},
    "lwf": {"strength": 3.0, "temperature": 4.0, "softmax": "sides", "warm_up": 0.1, "statistics": True, **RECIPE},
    "lwm": {"strength": 3.0, "attention": 5.0, "temperature": 4.0, "layer": "norm", "statistics": True, **RECIPE},
    "ewc": {
        "strength": 1.0,
        "fisher": "empirical",
        "images": 9,
        "online": True,
        "decay": 0.5,
        "softmax": "heads",
        "statistics": True,
        **RECIPE,
    },
    "acwod": {"layers": "adapter", "epsilon": 0.9, **RECIPE},
    "mas": {"strength": 0.1, "images": 9, "softmax": "heads", "statistics": True, **RECIPE},
    "joint": {"balanced": False, **RECIPE},
    "generative-replay": {
        "space": "features",
        "share": 0.9,
        "soft": True,
        "conditional": True,
        "dimension": 5,
        "width": 4,
        "drawing": 10,
        "drawing_lr": 0.01,
        **RECIPE,
    },
    "exemplars": {**KEPT, **RECIPE},
    "icarl": {**KEPT, **RECIPE},
    "wa": {"temperature": 1.0, "clip": False, **KEPT, **RECIPE},
    "bic": {"temperature": 1.0, "held_out": 0.6, **KEPT, **RECIPE},
    "podnet": {"spatial": 1.0, "flat": 3.0, "proxies": 2, "margin": 0.1, "balancing": 0.5, **KEPT, **RECIPE},
    "der": {
        "auxiliary": 0.3,
        "masks": True,
        "sparsity": 30.0,
        "scale": 5.0,
        "compensated": False,
        "finish": "aligned",
        "balancing": 0.3,
        "temperature": 1.0,
        **KEPT,
        **RECIPE,
    },
    "piggyback": {"threshold": 4e-3, "start": 7e-3, "spread": 0.4, "ternary": True, "softmax": "all", **RECIPE},
    "gates": {
        "sparsity": 5.0,
        "patience": 0.9,
        "temperature": 1.0,
        "softmax": "all",
        "statistics": True,
        **KEPT,
        **RECIPE,
    },
    "cosine": RECIPE,
    "glico": {**DRAWING, **RECIPE},
    "glico-transductive": {**DRAWING, **RECIPE},
    "pseudo-labels": {
        "strength": 1.0,
        "begin": 0.5,
        "full": 0.9,
        "threshold": 0.9,
        "source": "model",
        "ratio": 2,
        **RECIPE,
    },
    "mean-teacher": {"strength": 1.0, "full": 0.9, "decay": 0.1, "ratio": 2, **RECIPE},
    "fixmatch": {"strength": 0.3, "threshold": 0.95, "ratio": 1, "strong": "cutout", "decay": 0.1, **RECIPE},
    "noisy-student": {
        "generations": 1,
        "strength": 0.3,
        "ratio": 1,
        "threshold": 0.9,
        "balanced": False,
        "soft": False,
        "smoothing": 0.0,
        "dropout": 0.1,
        "survival": 0.3,
        **RECIPE,
    },
    "meta-pseudo-labels": {
        "feedback": 0.0,
        "scaled": False,
        "consistency": 8.0,
        "full": 0.9,
        "temperature": 0.4,
        "threshold": 0.99,
        "ratio": 1,
        "strong": "cutout",
        "finishing": 0.0,
        **RECIPE,
    },
    "uda": {
        "strength": 0.3,
        "temperature": 0.8,
        "threshold": 0.6,
        "annealing": "linear",
        "ratio": 1,
        "strong": "cutout",
        **RECIPE,
    },
    "mixmatch": {
        "full": 0.9,
        "strength": 10.0,
        "guesses": 3,
        "temperature": 0.9,
        "mixing": 0.3,
        "ratio": 2,
        "decay": 0.1,
        **RECIPE,
    },
    "temporal-ensembling": {"strength": 10.0, "full": 0.9, "decay": 0.3, "ratio": 2, **RECIPE},
    "vat": {"strength": 0.3, "radius": 0.5, "iterations": 2, "entropy": 0.3, "ratio": 2, **RECIPE},
    "ict": {"strength": 10.0, "full": 0.9, "mixing": 0.3, "decay": 0.1, "ratio": 2, **RECIPE},
    "remixmatch": {
        "full": 0.9,
        "strength": 0.3,
        "unmixed": 1.0,
        "rotation": 1.0,
        "views": 3,
        "temperature": 0.9,
        "mixing": 0.3,
        "decay": 0.1,
        "strong": "cutout",
        "ratio": 2,
        **RECIPE,
    },
    "data-distillation": {
        "views": 1,
        "transforms": "flip",
        "threshold": 0.0,
        "strength": 0.3,
        "ratio": 2,
        **RECIPE,
    },
    "data-distillation-keypoints": {
        "scales": (1.0, 1.25),
        "mirrored": False,
        "strength": 0.3,
        "ratio": 2,
        "spread": 0.7,
        **RECIPE,
    },
    "plain": {"linear_probe": 0.5, **RECIPE},
    "kd": {"share": 0.5, "temperature": 2.0, "squared": False, **RECIPE},
    "fitnets": {
        "layers": "last_norm=last_norm",
        "hinting": 0.7,
        "hint_lr": 0.03,
        "soft": 2.0,
        "last_soft": 0.5,
        "temperature": 1.0,
        **RECIPE,
    },
    "similarity": {"strength": 10.0, "layers": ("norm=norm",), "soft": 0.5, "temperature": 2.0, **RECIPE},
    "structured": {
        "pixel": 1.0,
        "pair": 1.0,
        "holistic": 0.3,
        "nodes": 2,
        "penalty": 1.0,
        "critic_lr": 0.001,
        "critic_width": 3,
        **RECIPE,
    },
    "part-experts": {"experts": 0.3, "maps": 0.3, "confidence": 0.5, "spread": 0.7, **RECIPE},
    "video-pose": {"motion": 0.3, "confidence": 0.5, **RECIPE},
    "ncm": {"metric": "euclidean"},
    "slda": {"shrinkage": 1e-2},
    "fecam": {"power": 1.0, "gamma1": 2.0, "gamma2": 0.5, "shared": True},
    "ranpac": {"width": 30, "seed": 1},
    "knn": {"neighbours": 4, "temperature": 0.5},
}
"""Another value for every field of every method; of its recipe under ``recipe.``."""
BESIDE: dict[str, dict[str, dict[str, Any]]] = {
    "glne": {key: {"memory": "none"} for key in ("confidence", "samples")} | {"drawing": {"memory": "cvae"}},
    "der": {key: {"masks": True} for key in ("sparsity", "scale", "compensated")},
}
"""Settings beside which a field has its effect, where the small ones leave it none."""
ALL_TERMS: dict[str, dict[str, Any]] = {"der": {"masks": True}}
"""Settings with which a method has every term that it ever has, where the small ones leave one out."""


class Residual(nn.Module):
    """A convolution with batch norm beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.inner(x)))


class Larger(nn.Module):
    """A student's body: two residual blocks between a convolution and the mean over positions."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.layers = nn.Sequential(stem, Residual(6), Residual(6))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))


class Body(nn.Module):
    """Two convolutions with batch norm and their mean over positions: 498 weights."""

    num_features = 6

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, self.num_features, 3, bias=False)
        self.last_norm = nn.BatchNorm2d(self.num_features)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(images)))
        return F.relu(self.last_norm(self.second(x))).mean((2, 3))


def residual() -> nn.Module:
    """A CIFAR ResNet of two blocks: 984 weights."""
    return headless(CifarResNet((1, 1), (4, Body.num_features), projection=False, num_classes=2), "linear")


BODIES: dict[str, Callable[[], nn.Module]] = {"der": residual}
"""Networks that a method shows all it has on, where ``Body`` is not one."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Several threads on busy cores wait for one another at every layer, a hundred times longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photos(classes: tuple[str, ...], count: int = 5, seed: int = 0) -> Images:
    """``count`` noisy pictures of the pattern that belongs to each class's name."""
    stacks = []
    for name in classes:
        pattern = np.random.default_rng(zlib.crc32(name.encode())).uniform(60, 195, (1, 3, 4, 4)).repeat(14, 2)
        pattern = pattern.repeat(14, 3)[:, :, ::4, ::4]
        noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(0, 20, (count, 3, 14, 14))
        stacks.append(torch.from_numpy((pattern + noise).clip(0, 255).astype(np.uint8)))
    labels = torch.arange(len(classes)).repeat_interleave(count)
    return Images(torch.cat(stacks), labels, classes, PREPARATION)


def task(classes: tuple[str, ...], count: int = 5, seed: int = 0) -> Task:
    return Task(classes, photos(classes, count, seed))


def empty(body: Callable[[], nn.Module] = Body) -> Classifier:
    """A classifier that knows no class yet."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(body(), Head(), ()).eval()


@cache
def _trained(body: Callable[[], nn.Module]) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = empty(body).grown(OLD)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    images = photos(OLD, 8)
    for _ in range(30):
        loss = F.cross_entropy(model.train()(images.view(torch.arange(32), torch.device("cpu"))), images.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def trained(body: Callable[[], nn.Module] = Body) -> Classifier:
    """A classifier of the old classes, trained a little; a copy of one's own."""
    return copy.deepcopy(_trained(body))


def larger(outputs: int = 4) -> Classifier:
    """Another network for the old classes, untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Classifier(Larger(), Head([nn.Linear(6, outputs)]), OLD[:outputs]).eval()


def unlabelled(count: int = 6, seed: int = 3) -> Images:
    """More pictures of the old classes; what stands for their labels means nothing."""
    images = photos(OLD, count, seed)
    return replace(images, labels=0 * images.labels, classes=("",))


def student(classes: tuple[str, ...] = OLD) -> Classifier:
    """A thinner network of the same classes, not trained yet."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Classifier(Body(4), Head([nn.Linear(Body.num_features, len(classes))]), classes).eval()


def labelling(classes: tuple[str, ...] = OLD, width: int = 4, seed: int = 0) -> Segmenter:
    """A network that labels every pixel."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        return Segmenter(nn.Sequential(*layers, nn.Conv2d(width, len(classes), 1)), classes).eval()


def masked(images: Images) -> Images:
    """The images with masks, half of each its class and half void; as they are where nothing is labelled."""
    if not images.classes:
        return images
    masks = images.labels.to(torch.uint8)[:, None, None].repeat(1, *images.pixels.shape[2:])
    masks[:, :, 7:] = 255
    fields = {field.name: getattr(images, field.name) for field in dataclasses.fields(Images)}
    return Scenes(**{**fields, "labels": 0 * images.labels}, masks=masks)


def pointing(classes: tuple[str, ...] = OLD, width: int = 4, seed: int = 0) -> Locator:
    """A network that finds a point of each name."""
    found = labelling(classes, width, seed)
    return Locator(found.network, classes, MIRRORED).eval()


def watching(classes: tuple[str, ...] = OLD) -> Watcher:
    """A network that sees two frames."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        body = nn.Sequential(nn.Conv2d(6, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten())
        return Watcher(body, 4 * 36, classes, MIRRORED, 8).eval()


MIRRORED = (("ant", "bee"),)


def pointed(images: Images) -> Poses:
    """The images as frames that follow one another in a ring, in each of which the point of its class's name is annotated."""
    count, kinds = len(images), len(images.classes)
    places = torch.stack([3.0 + torch.arange(count) % 5 * 2, 4.0 + torch.arange(count) % 3 * 3], 1)
    known = torch.arange(kinds) == images.labels[:, None]
    fields = {field.name: getattr(images, field.name) for field in dataclasses.fields(Images)}
    return Poses(
        **{**fields, "labels": 0 * images.labels}, points=places[:, None].repeat(1, kinds, 1), annotated=known, pairs=MIRRORED,
        before=torch.arange(count).roll(1),
    )  # fmt: skip


def cast(name: str, teacher: Any, pupil: Any, *images: Images) -> tuple[Any, ...]:
    """Teacher, student and images of the kind that the method works on, in the modes and of the classes given."""
    if name in POINTERS:
        master = pointing(teacher.classes, 6).to(teacher.device).train(teacher.training)
        own = watching(pupil.classes) if name == "video-pose" else pointing(pupil.classes, 4, 1)
        if pupil is teacher:
            own = master
        return master, own.to(teacher.device).train(pupil.training), *map(pointed, images)
    if name not in SEGMENTERS:
        return teacher, pupil, *images
    master = labelling(teacher.classes, 6).to(teacher.device).train(teacher.training)
    return master, labelling(pupil.classes, 4, 1).to(teacher.device).train(pupil.training), *map(masked, images)


def made(name: str, **settings: Any) -> Any:
    """The method with its small settings and these."""
    verbs = {
        "extend": catalogue.extender,
        "train": catalogue.trainer,
        "self-train": catalogue.selftrainer,
        "distill": catalogue.distiller,
    }
    make = next(verbs[entry.verb] for entry in catalogue.ENTRIES if entry.name == name)
    return make(name, {**SMALL.get(name, {}), **settings})


def learnt(method: Any, model: Classifier, images: Images) -> Classifier:
    """What a trainer makes of a model, or a distiller or a self-trainer of a student whose teacher it is."""
    name = next(entry.name for entry in catalogue.ENTRIES if entry.type == type(method).__name__)
    if isinstance(method, SelfTrainer):
        pupil = larger().to(model.device).train(model.training)
        return method.train(*cast(name, model, pupil, images, unlabelled()))
    if isinstance(method, Distiller):
        return method.distill(*cast(name, model, student(), images))
    return method.train(model, images)


def remembered(method: Extender, model: Classifier, seen: Task, memory: object | None = None) -> object | None:
    return method.remember(model, seen, memory)


def outcome(name: str, state: int = 0, **settings: Any) -> Classifier:
    """What the method makes of the same model and photos, extended twice where it keeps something; ``state`` seeds the
    global generators."""
    torch.manual_seed(state)
    random.seed(state)
    np.random.seed(state)  # noqa: NPY002
    method = made(name, **settings)
    if name not in EXTENDERS:
        return learnt(method, trained(), photos(OLD))
    model = trained(BODIES.get(name, Body))
    memory = remembered(method, model, task(OLD, 6))
    grown = method.extend(model, memory, task(NEW, 4))
    if memory is None:
        return grown
    return method.extend(grown, remembered(method, grown, task(NEW, 4), memory), task(LATER, 4))


def bits(value: object) -> object:
    """Something that is equal only where every number of the value has the same bits."""
    if isinstance(value, nn.Module):
        return (
            {key: bits(tensor) for key, tensor in value.state_dict().items()},
            [(part.training, type(part)) for part in value.modules()],
            [(p.requires_grad, bits(p.grad)) for p in value.parameters()],
            getattr(value, "classes", None),
        )
    if isinstance(value, Tensor):
        return (value.dtype, tuple(value.shape), value.detach().contiguous().numpy().tobytes())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: bits(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [bits(item) for item in value]
    return value


def weights(model: Classifier) -> object:
    return {key: bits(tensor) for key, tensor in model.state_dict().items()}


def inputs(count: int = 7, seed: int = 9) -> Tensor:
    return photos(OLD + NEW + LATER, 2, seed).view(torch.arange(14), torch.device("cpu"))[:count]


def sound(model: Classifier, classes: tuple[str, ...]) -> bool:
    """Whether it has these classes, in this order, and numbers for them."""
    logits = model(inputs())
    return model.classes == classes and logits.shape[:2] == (7, len(classes)) and bool(logits.isfinite().all())


extenders = pytest.mark.parametrize("name", EXTENDERS)
selftrainers = pytest.mark.parametrize("name", SELF_TRAINERS)
methods = pytest.mark.parametrize("name", EXTENDERS + TRAINERS + SELF_TRAINERS + DISTILLERS)


# -- 1. what the caller gave ----------------------------------------------------------------------------------------


@extenders
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_remembering_and_extending_change_nothing_that_was_given(name: str, training: bool) -> None:
    method, model, old, new = made(name), trained().train(training), task(OLD), task(NEW)
    given = (model, old, new)
    before = bits(given)
    memory = method.remember(model, old, None)
    assert bits(given) == before
    before = bits((*given, memory))
    grown = method.extend(model, memory, new)
    assert bits((*given, memory)) == before
    method.remember(grown, new, memory)
    assert bits((*given, memory)) == before


@pytest.mark.parametrize("name", TRAINERS)
def test_training_changes_nothing_that_was_given(name: str) -> None:
    model, images = trained(), photos(OLD)
    before = bits((model, images))
    made(name).train(model, images)
    assert bits((model, images)) == before


@selftrainers
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_self_training_changes_nothing_that_was_given(name: str, training: bool) -> None:
    given = cast(name, trained().train(training), larger().train(training), photos(OLD), unlabelled())
    before = bits(given)
    found = made(name).train(*given)
    assert bits(given) == before
    with torch.no_grad():
        for tensor in found.state_dict().values():
            tensor.zero_()
    assert bits(given) == before


@selftrainers
def test_the_model_may_be_its_own_student(name: str) -> None:
    model = trained()
    assert sound(made(name).train(*cast(name, model, model, photos(OLD), unlabelled())), OLD)


@selftrainers
def test_what_stands_for_labels_of_unlabelled_images_is_not_looked_at(name: str) -> None:
    images = unlabelled()
    other = replace(images, labels=torch.arange(len(images)) % 3, classes=("x", "y", "z"))
    found = [weights(made(name).train(*cast(name, trained(), larger(), photos(OLD), each))) for each in (images, other)]
    assert found[0] == found[1]


@selftrainers
@pytest.mark.parametrize(("count", "free"), [(1, 6), (5, 1), (1, 1)])
def test_self_training_works_from_few_images(name: str, count: int, free: int) -> None:
    one = unlabelled(free).subset(torch.arange(1)) if free == 1 else unlabelled(free)
    assert sound(made(name).train(*cast(name, trained(), larger(), photos(OLD, count), one)), OLD)


@selftrainers
def test_labels_of_self_training_count_in_the_order_of_the_images_own_classes(name: str) -> None:
    images = photos(OLD)
    turned = replace(images, labels=3 - images.labels, classes=OLD[::-1])
    found = [
        weights(made(name).train(*cast(name, trained(), larger(), each, unlabelled()))) for each in (images, turned)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", DISTILLERS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_distilling_changes_nothing_that_was_given(name: str, training: bool) -> None:
    teacher, pupil, images = cast(name, trained().train(training), student().train(training), photos(OLD))
    before = bits((teacher, pupil, images))
    found = made(name).distill(teacher, pupil, images)
    assert bits((teacher, pupil, images)) == before
    with torch.no_grad():
        for tensor in found.state_dict().values():
            tensor.zero_()
    assert bits((teacher, pupil, images)) == before


@pytest.mark.parametrize("name", DISTILLERS)
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("given", [OLD, OLD[:2], ("cow", "ant", "yak"), ()], ids=["all", "some", "others too", "none"])
def test_a_student_learns_all_classes_from_images_of_some_or_without_labels(
    name: str, count: int, given: tuple[str, ...]
) -> None:
    images = photos(given or OLD, count)
    images = images if given else replace(images, labels=0 * images.labels, classes=())
    teacher, pupil, images = cast(name, trained(), student(), images)
    found = made(name).distill(teacher, pupil, images)
    assert sound(found, OLD)
    moved = [bits(p) != bits(q) for p, q in zip(found.parameters(), pupil.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("name", DISTILLERS)
def test_a_student_of_other_classes_or_images_of_none_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="4 classes are not the teacher's 4; give it the same names"):
        made(name).distill(*cast(name, trained(), student(OLD[::-1]), photos(OLD)))
    with pytest.raises(InputError, match="no image to distill with"):
        made(name).distill(*cast(name, trained(), student(), photos(NEW)))


@pytest.mark.parametrize("name", sorted({*DISTILLERS} - SEGMENTERS - POINTERS))
def test_what_is_no_classifier_is_not_distilled_as_one(name: str) -> None:
    pixels = Segmenter(nn.Conv2d(3, 4, 1), OLD)
    for pair in ((pixels, pixels), (trained(), pixels), (pixels, student())):
        with pytest.raises(InputError, match="take structured"):
            made(name).distill(*pair, photos(OLD))


@extenders
def test_a_grown_model_shares_no_memory_with_the_one_given(name: str) -> None:
    method, model = made(name), trained()
    before = bits(model)
    grown = method.extend(model, remembered(method, model, task(OLD)), task(NEW))
    with torch.no_grad():
        for tensor in grown.state_dict().values():
            tensor.zero_()
    assert bits(model) == before


# -- 2. any sequence of tasks ---------------------------------------------------------------------------------------


@extenders
def test_new_classes_come_after_the_old_in_the_order_of_the_task(name: str) -> None:
    method, model = made(name), trained()
    for classes in (("fox", "elk"), ("elk", "fox")):
        assert sound(method.extend(model, remembered(method, model, task(OLD)), task(classes)), OLD + classes)


@extenders
@pytest.mark.parametrize("first", [NEW, LATER], ids=["two classes", "one class"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_first_task_and_a_second_work_from_a_classifier_without_classes(
    name: str, first: tuple[str, ...], count: int
) -> None:
    method = made(name)
    started = method.extend(empty(), None, task(first, count))
    assert sound(started, first)
    memory = remembered(method, started, task(first, count))
    assert sound(method.extend(started, memory, task(OLD, count)), first + OLD)


@extenders
@pytest.mark.parametrize("count", [1, 2])
def test_two_extensions_in_a_row_work_from_one_image_a_class(name: str, count: int) -> None:
    method, model = made(name), trained()
    memory = remembered(method, model, task(OLD))
    grown = method.extend(model, memory, task(NEW, count))
    assert sound(grown, OLD + NEW)
    memory = remembered(method, grown, task(NEW, count), memory)
    assert sound(method.extend(grown, memory, task(LATER, count)), OLD + NEW + LATER)


@extenders
def test_a_task_may_hold_classes_that_are_known(name: str) -> None:
    method, model = made(name), trained()
    memory = remembered(method, model, task(OLD))
    assert sound(method.extend(model, memory, task(("bee", "elk", "ant"))), (*OLD, "elk"))


@extenders
def test_a_task_may_hold_no_new_class_at_all(name: str) -> None:
    method, model = made(name), trained()
    memory = remembered(method, model, task(OLD))
    assert sound(method.extend(model, memory, task(("bee", "ant"))), OLD)


@extenders
@pytest.mark.parametrize("present", NEW)
def test_a_class_without_a_photo_is_refused_or_leaves_the_numbers_whole(name: str, present: str) -> None:
    method, model = made(name), trained()
    memory = remembered(method, model, task(OLD))
    try:
        grown = method.extend(model, memory, Task(NEW, photos((present,))))
    except InputError:
        return
    assert sound(grown, OLD + NEW)


@extenders
def test_labels_count_in_the_order_of_the_images_own_classes(name: str) -> None:
    """The same pictures, labelled by the classes' names in another order, are the same task."""
    images = photos(NEW)
    turned = replace(images, labels=1 - images.labels, classes=NEW[::-1])
    wider = replace(images, labels=images.labels + 1, classes=("yak", *NEW))
    found = []
    for given in (images, turned, wider):
        torch.manual_seed(0)
        method, model = made(name), trained()
        found.append(weights(method.extend(model, remembered(method, model, task(OLD)), Task(NEW, given))))
    assert found[0] == found[1] == found[2]


@extenders
@pytest.mark.parametrize("count", [1, 5])  # five images in batches of four leave one
def test_a_body_that_normalises_its_features_works_from_one_image(name: str, count: int) -> None:
    body = nn.Sequential(Body(), nn.BatchNorm1d(Body.num_features))
    model = Classifier(body, Head([nn.Linear(Body.num_features, 4)]), OLD).eval()
    method = made(name)
    memory = remembered(method, model, task(OLD[:1] if count == 1 else OLD, count))
    if method.keeps != "nothing":
        memory = remembered(method, model, Task(OLD, photos(OLD, 1)))
    grown = method.extend(model, memory, task(LATER, count))
    assert grown.classes == OLD + LATER


# -- 3. named terms -------------------------------------------------------------------------------------------------


def strengths(terms: Mapping[str, Tensor], learnable: list[Tensor]) -> dict[str, float]:
    """The largest gradient of each term alone."""
    found = {}
    for term, value in terms.items():
        gradients = (
            torch.autograd.grad(value, learnable, retain_graph=True, allow_unused=True) if value.requires_grad else ()
        )
        found[term] = max((float(g.abs().max()) for g in gradients if g is not None), default=0.0)
    return found


def spied(name: str, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object] | None = None) -> dict[str, float]:
    """Every term that a run of the method descends, with its strongest gradient at any step."""
    seen: dict[str, float] = {}
    entry = next(e for e in catalogue.ENTRIES if e.name == name)
    module = importlib.import_module(entry.module)

    def note(terms: Mapping[str, Tensor], learnable: list[Tensor]) -> None:
        for term, strength in strengths(terms, learnable).items():
            seen[term] = max(seen.get(term, 0.0), strength)

    def spying_fit(trainee: nn.Module, objective: Callable[..., Any], *given: Any, **options: Any) -> Any:
        def noting(batch: loop.Batch) -> Any:
            terms = objective(batch)
            note(terms, [p for p in trainee.parameters() if p.requires_grad])
            return terms

        return loop.fit(trainee, noting, *given, **options)

    def spying_solve(terms: Callable[..., Any], *given: Any, **options: Any) -> Any:
        def noting(*learnable: Tensor) -> Any:
            found = terms(*learnable)
            note(found, list(learnable))
            return found

        return solve(noting, *given, **options)

    def spying_descend(objective: Callable[..., Any], learning: Any, *given: Any, **options: Any) -> Any:
        def noting(batch: Any) -> Any:
            terms = objective(batch)
            parts = [p for part in learning for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
            note(terms, [p for p in parts if p.requires_grad])
            return terms

        return loop.descend(noting, learning, *given, **options)

    for place in (module, generative):
        if hasattr(place, "fit"):
            monkeypatch.setattr(place, "fit", spying_fit)
    for place in (module, latent, self_training):
        if hasattr(place, "descend"):
            monkeypatch.setattr(place, "descend", spying_descend)
    if solve := getattr(module, "solve", None):
        monkeypatch.setattr(module, "solve", spying_solve)
    (run or (lambda: outcome(name, **ALL_TERMS.get(name, {}))))()
    return seen


TERMS = {
    "glne": {"new", "added", "base", "decay"},
    "soft-distillation": {"new", "base", "old", "decay"},
    "glne-literal": {"distillation", "base", "decay"},
    "rows": {"new", "decay"},
    "finetune": {"new"},
    "lwf": {"new", "old"},
    "lwm": {"new", "old", "attention"},
    "ewc": {"new", "old"},
    "acwod": {"new", "old"},
    "mas": {"new", "old"},
    "joint": {"all"},
    "generative-replay": {"new", "old", "reconstruction", "divergence"},
    "exemplars": {"all"},
    "icarl": {"new", "old"},
    "wa": {"class", "old"},
    "bic": {"class", "old", "correction", "pull"},
    "podnet": {"class", "spatial", "flat", "balanced"},
    "der": {"all", "auxiliary", "sparsity", "balanced"},
    "piggyback": {"new"},
    "gates": {"new", "sparsity", "task"},
    "plain": {"class"},
    "cosine": {"class"},
    "glico": {"pixels", "maps", "class", "learning"},
    "glico-transductive": {"pixels", "maps", "class", "learning"},
    "pseudo-labels": {"labelled", "unlabelled"},
    "mean-teacher": {"labelled", "unlabelled"},
    "fixmatch": {"labelled", "unlabelled"},
    "noisy-student": {"labelled", "unlabelled"},
    "meta-pseudo-labels": {"student", "labelled", "consistency", "feedback", "finishing"},
    "uda": {"labelled", "unlabelled"},
    "mixmatch": {"labelled", "unlabelled"},
    "temporal-ensembling": {"labelled", "unlabelled"},
    "vat": {"labelled", "unlabelled", "entropy"},
    "ict": {"labelled", "unlabelled"},
    "remixmatch": {"labelled", "unlabelled", "unmixed", "rotation"},
    "data-distillation": {"labelled", "unlabelled"},
    "data-distillation-keypoints": {"labelled", "unlabelled"},
    "kd": {"hard", "soft"},
    "fitnets": {"hint", "class", "soft"},
    "similarity": {"class", "similarity", "soft"},
    "structured": {"class", "pixel", "pair", "holistic", "critic", "penalty"},
    "part-experts": {"labels", "experts", "maps"},
    "video-pose": {"pose", "motion"},
}


@pytest.mark.parametrize("name", DISTILLERS)
def test_without_labels_every_term_that_is_left_has_a_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without = replace(photos(OLD), labels=torch.zeros(20, dtype=torch.int64), classes=())
    seen = spied(name, monkeypatch, lambda: learnt(made(name), trained(), without))
    assert not [term for term, strength in seen.items() if strength == 0]
    assert seen.keys() == TERMS[name] - ({"hard", "class", "labels"} if name != "similarity" else set())


@pytest.mark.parametrize(
    "name", [n for n in EXTENDERS + TRAINERS + SELF_TRAINERS + DISTILLERS if n not in WITHOUT_TERMS]
)
def test_every_named_term_has_a_gradient_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spied(name, monkeypatch)
    assert seen, "no term was seen: the method neither calls fit nor solve"
    assert not [term for term, strength in seen.items() if strength == 0]
    assert set(seen) == TERMS.get(name, set(seen))


def test_a_detached_term_would_be_noticed() -> None:
    weight = torch.ones(2, requires_grad=True)
    terms = {"live": weight.sum(), "detached": weight.detach().sum(), "constant": (0 * weight).sum()}
    assert strengths(terms, [weight]) == {"live": 1.0, "detached": 0.0, "constant": 0.0}


# -- 4. no dead knobs -----------------------------------------------------------------------------------------------


def fields_of(name: str) -> set[str]:
    entry = next(e for e in catalogue.ENTRIES if e.name == name)
    own = {field.name for field in dataclasses.fields(catalogue.method_type(entry))}
    recipe = {f"recipe.{field.name}" for field in dataclasses.fields(Recipe)} if "recipe" in own else set()
    return own - {"recipe"} | recipe


@methods
def test_every_field_has_an_alternative_to_be_tested_with(name: str) -> None:
    assert set(ALTERNATIVES.get(name, {})) == fields_of(name)


@cache
def _usual(name: str, beside: tuple[tuple[str, Any], ...]) -> object:
    return weights(outcome(name, **dict(beside)))


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, fields in ALTERNATIVES.items() for field in fields], ids=str
)
def test_no_knob_is_dead(name: str, field: str) -> None:
    method, own = made(name), field.removeprefix("recipe.")
    beside = BESIDE.get(name, {}).get(field, {})
    value = ALTERNATIVES[name][field]
    assert getattr(method.recipe if field.startswith("recipe.") else method, own) != value, "that is no alternative"
    assert weights(outcome(name, **beside, **{own: value})) != _usual(name, tuple(beside.items()))


# -- 5. seeds -------------------------------------------------------------------------------------------------------


@methods
def test_the_same_seed_gives_the_same_bits_whatever_the_global_generators(name: str) -> None:
    assert weights(outcome(name, state=1)) == weights(outcome(name, state=2))


@methods
def test_the_global_generators_are_left_alone(name: str) -> None:
    def states() -> object:
        return bits((torch.get_rng_state(), random.getstate(), torch.from_numpy(np.random.get_state()[1].copy())))  # noqa: NPY002

    method, model, old, new = made(name), trained(), task(OLD), task(NEW)
    before = states()
    if name not in EXTENDERS:
        learnt(method, model, old.train)
    else:
        method.extend(model, method.remember(model, old, None), new)
    assert states() == before


# -- 6. memory ------------------------------------------------------------------------------------------------------


def tensors_in(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def holds_an_image(memory: object, images: Images) -> bool:
    """Whether a whole training image lies anywhere in the memory: as pixels, as fractions or as network input."""
    seen = images.view(torch.arange(len(images)), torch.device("cpu"))
    forms = [images.pixels.double(), images.pixels.double() / 255, seen.double()]
    for tensor in tensors_in(memory):
        for form in forms:
            for image in form.flatten(1):
                if tensor.numel() >= len(image):
                    # an image that starts anywhere: look at it where its first number stands
                    flat = tensor.detach().double().flatten()
                    starts = torch.nonzero((flat[: len(flat) - len(image) + 1] - image[0]).abs() < 1e-5)[:, 0].tolist()
                    if any(torch.allclose(flat[s : s + len(image)], image, atol=1e-5) for s in starts):
                        return True
    return False


@extenders
def test_memory_is_a_frozen_dataclass_and_holds_no_training_image_unless_it_says_so(name: str) -> None:
    method, model = made(name), trained()
    keeps: ClassVar[str] = method.keeps
    assert keeps in ("nothing", "statistics", "images")
    memory = remembered(method, model, task(OLD))
    later = remembered(method, method.extend(model, memory, task(NEW)), task(NEW), memory)
    for kept in (memory, later):
        assert (kept is None) == (keeps == "nothing") == (method.memory_type is None)
        if kept is not None:
            assert dataclasses.is_dataclass(kept)
            assert kept.__dataclass_params__.frozen  # type: ignore[attr-defined]
            assert holds_an_image(kept, photos(OLD)) == (keeps == "images")
    if keeps == "images":
        assert holds_an_image(later, photos(NEW))


@extenders
def test_memory_survives_saving_and_extends_to_the_same_bits(name: str) -> None:
    method, model = made(name), trained()
    memory = remembered(method, model, task(OLD))
    if memory is None:
        return
    kept = packed(memory)
    assert method.memory_type is not None
    again = unpacked(method.memory_type, Packed(json.loads(json.dumps(kept.plain)), load(save(dict(kept.tensors)))))
    assert bits(again) == bits(memory)
    assert weights(method.extend(model, again, task(NEW))) == weights(method.extend(model, memory, task(NEW)))


@extenders
def test_a_removed_class_leaves_the_memory_and_the_method_goes_on(name: str) -> None:
    method, model = made(name), trained()
    memory = without(remembered(method, model, task(OLD)), ["bee"])
    assert "bee" not in set(words(memory))
    assert not holds_an_image(memory, photos(("bee",)))
    left = tuple(kept for kept in OLD if kept != "bee")
    assert sound(method.extend(model.without(["bee"]), memory, task(NEW)), left + NEW)


@pytest.mark.parametrize("form", ["pixels", "fractions", "input", "one among numbers"])
def test_a_hidden_image_would_be_found(form: str) -> None:
    @dataclasses.dataclass(frozen=True)
    class Kept:
        parts: dict[str, tuple[Tensor, ...]]

    images = photos(OLD)
    hidden = {
        "pixels": images.pixels[3:5],
        "fractions": images.pixels[3].half().float() / 255,
        "input": inputs(1) * 0 + images.view(torch.tensor([3]), torch.device("cpu")),
        "one among numbers": torch.cat([torch.rand(5), images.pixels[3].flatten().float(), torch.rand(9)]),
    }[form]
    assert holds_an_image(Kept({"statistics": (torch.rand(4), hidden)}), images)
    assert not holds_an_image(Kept({"statistics": (torch.rand(4), hidden.float().flip(-1) + 1)}), images)


@extenders
def test_a_method_that_keeps_nothing_needs_no_memory(name: str) -> None:
    if made(name).keeps == "nothing":
        assert sound(made(name).extend(trained(), None, task(NEW)), OLD + NEW)


# -- 7. what is promised to stay ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FROZEN + MASKS)
@pytest.mark.parametrize("batch", [1, 2, 7])
@torch.no_grad()
def test_the_old_logits_keep_their_bits_through_two_extensions(name: str, batch: int) -> None:
    method, model = made(name), trained()
    before, images = model(inputs(batch)), inputs(batch)
    for classes in (NEW, LATER):
        with torch.enable_grad():
            model = method.extend(model, None, task(classes))
        after = model(images)
        assert torch.equal(after[:, : before.shape[1]], before)
        before = after


# -- 8. the state that a model is left in ---------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_model_ends_finite_on_its_device_and_in_evaluation_mode(name: str, training: bool) -> None:
    method, model = made(name), trained().train(training)
    if name not in EXTENDERS:
        found = learnt(method, model, photos(OLD))
    else:
        found = method.extend(model, remembered(method, model, task(OLD)), task(NEW))
    assert not [key for key, part in found.named_modules() if part.training]
    assert {tensor.device for tensor in found.state_dict().values()} == {torch.device("cpu")}
    assert all(bool(tensor.isfinite().all()) for tensor in found.state_dict().values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@methods
def test_a_model_on_a_gpu_stays_there(name: str) -> None:
    method, model = made(name), trained().cuda()
    if name not in EXTENDERS:
        found = learnt(method, model, photos(OLD))
    else:
        found = method.extend(model, remembered(method, model, task(OLD)), task(NEW))
    assert {tensor.device.type for tensor in found.state_dict().values()} == {"cuda"}
    assert found(inputs().cuda()).isfinite().all()


@pytest.mark.parametrize("name", FROZEN + STATISTICS)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_frozen_body_and_its_statistics_do_not_move(name: str, training: bool) -> None:
    method, model = made(name), trained().train(training)
    grown = method.extend(model, remembered(method, model, task(OLD)), task(NEW))
    assert {k: bits(v) for k, v in grown.body.state_dict().items()} == {
        k: bits(v) for k, v in model.body.state_dict().items()
    }


def test_fit_leaves_frozen_parts_and_their_batch_norm_statistics_alone() -> None:
    model = trained()
    model.body.first.requires_grad_(False)
    model.body.norm.requires_grad_(False)
    before = {key: bits(value) for key, value in model.state_dict().items()}

    def objective(batch: loop.Batch) -> loop.Terms:
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    loop.fit(model, objective, photos(OLD), Recipe(**FEW_EPOCHS))
    moved = {key for key, value in model.state_dict().items() if bits(value) != before[key]}
    assert not [key for key in moved if key.startswith(("body.first", "body.norm"))]
    assert {"body.last_norm.running_mean", "body.last_norm.running_var", "body.second.weight"} <= moved


@extenders
def test_a_method_that_learns_everything_moves_the_body_and_the_others_do_not(name: str) -> None:
    method, model = made(name), trained()
    grown = method.extend(model, remembered(method, model, task(OLD)), task(NEW))
    first, before = ([p for p in each.body.parameters() if p.ndim == 4] for each in (grown, model))
    still = [*FROZEN, *STATISTICS, *BODY_ADDED, *HEAD_ALONE, *MASKS]
    assert torch.equal(first[0], before[0]) == (name in still + ABOVE)
    assert torch.equal(first[1], before[1]) == (name in still)
    # der and gates leave what was there alone, and bring a body or choose kernels of their own
    assert method.needs_trained_body == (name in {*still, *ABOVE} - BODY_ADDED - {"gates"})


def test_the_pictures_of_this_page_can_be_told_apart() -> None:
    """The ground under the tests above: a network that is trained on them is right about others of them."""
    images = photos(OLD, 8, seed=5)
    right = trained()(images.view(torch.arange(32), torch.device("cpu"))).argmax(1) == images.labels
    assert right.float().mean() > 0.9
    assert len(joined(photos(OLD), photos(NEW))) == 30
