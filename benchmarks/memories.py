"""What a memory of the old classes is worth: every real feature, mixtures of any size, or nothing.

    python benchmarks/memories.py                  both bases; about an hour on two cores
    python benchmarks/memories.py --bases cifar    the first alone
    python benchmarks/memories.py --smoke          a few rows, to see that it runs; writes nothing

Bases: the CIFAR-10 ResNet-56 of the shared data, extended with ten Tiny-ImageNet classes that are no kinds of CIFAR-10
classes; and a ResNet-32 trained here on 80 Tiny-ImageNet classes at 32 pixels, extended with the 20 most confusable. Most
confusable are those whose images the ImageNet MobileNetV2 most often finds nearer to another class's mean: a network that
takes no part otherwise, and training images only. What a frozen body sees is computed once.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from exact import CIFAR
from flowers import imagenet
from record import data, write
from torch import Tensor

from classgraft import api, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.metrics import tradeoff
from classgraft.models.sources import Architecture
from classgraft.training.answers import answers

NOT_IN_CIFAR = (
    "trilobite", "bee", "cash machine", "fountain", "maypole",
    "poncho", "sombrero", "guacamole", "obelisk", "potter's wheel",
)  # fmt: skip
DRAWS = {1: 3, 5: 3, 20: 3}
CONFUSABLE, LOOKED_AT = 20, 30
"""Classes that the second base is extended with; training images of each class that say which."""

MIXTURES: dict[str, dict[str, Any]] = {
    "chosen": {},
    **{f"{bytes_} bytes": {"memory_bytes": bytes_} for bytes_ in (150, 600)},
    **{
        f"{covariance}, {components}": {"covariance": covariance, "components": components}
        for covariance, most in (("spherical", 4), ("diagonal", 4), ("low-rank", 1), ("shared", 1))
        for components in (1, 4)
        if components <= most
    },
}
METHODS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "glne, real features": ("glne", {"memory": "features"}, True),
    **{f"glne, mixture: {name}": ("glne", settings, True) for name, settings in MIXTURES.items()},
    "glne, conditional VAE of images": ("glne", {"memory": "cvae"}, True),
    "glne, data-free": ("glne", {}, False),
    "soft distillation": ("soft-distillation", {}, True),
    "soft distillation, strength 0 (control)": ("soft-distillation", {"strength": 0.0}, True),
    "glne, literal objective": ("glne-literal", {}, True),
    "imprint": ("imprint", {}, False),
    "rows": ("rows", {}, False),
    "finetune": ("finetune", {}, False),
    "joint": ("joint", {"epochs": 5}, True),
}
"""By name: the method, its settings, and whether it may look at the old images before."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", nargs="*", choices=("cifar", "tiny"), default=["cifar", "tiny"])
    parser.add_argument("--epochs", type=int, default=30, help="of the second base")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    for which in options.bases:
        base, old, new, facts = cifar() if which == "cifar" else tiny(options.epochs)
        if options.smoke:
            old = (old[0].shots(50, 0), old[1].shots(20, 0))
        rows = table(base, old, new, options.smoke)
        if not options.smoke:
            n = {"old": len(old[1]), "new": len(new[1]), "old images to remember": len(old[0])}
            write(f"memories-{which}", facts.pop("what"), n=n, **facts, rows=rows)


Pair = tuple[Images, Images]
"""Training and test images."""


def cifar() -> tuple[Bundle, Pair, Pair, dict[str, Any]]:
    base = api.import_model("cifar:resnet56", data() / "weights" / "resnet56-4bfd9763.th", CIFAR)
    old = [api.labelled(base, [data() / "cifar10" / f"{part}.parquet"]) for part in ("train", "test")]
    parts = _tiny(base)
    names = tuple(next(full for full in parts[0].classes if full.split(",")[0] == name) for name in NOT_IN_CIFAR)
    what = f"CIFAR-10 ResNet-56 (64 features) extended with ten Tiny-ImageNet classes ({', '.join(NOT_IN_CIFAR)})"
    return base, (old[0], old[1]), (parts[0].of(names), parts[1].of(names)), {"what": what}


def tiny(epochs: int) -> tuple[Bundle, Pair, Pair, dict[str, Any]]:
    judge = imagenet()
    pictures = api.images_of(open_source(data() / "tinyimagenet100" / "train.parquet"), judge.preparation)
    new = confusable(judge, pictures.shots(LOOKED_AT, 0))
    names = tuple(name for name in pictures.classes if name not in new)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Architecture("cifar:resnet32").build(len(names))
    base = api.import_model(network, classes=names, size=32, resize=32)
    parts = _tiny(base)
    base = teaching.train(base, parts[0].of(names), settings={"epochs": epochs})
    what = f"a ResNet-32 trained on 80 Tiny-ImageNet classes ({epochs} epochs, 32 pixels) extended with the 20 most confusable"
    chosen = [name.split(",")[0] for name in new]
    old, added = ((parts[0].of(which), parts[1].of(which)) for which in (names, new))
    return base, old, added, {"what": what, "classes": chosen}


def _tiny(base: Bundle) -> Pair:
    folder = data() / "tinyimagenet100"
    train, test = (
        api.images_of(open_source(folder / f"{part}.parquet"), base.preparation) for part in ("train", "test")
    )
    return train, test


def confusable(judge: Bundle, images: Images) -> tuple[str, ...]:
    """The classes whose images are most often nearer to another class's mean, each image left out of its own."""
    features = torch.nn.functional.normalize(answers(judge.model, images, judge.model.features))
    count = torch.bincount(images.labels)
    sums = torch.zeros(len(count), features.shape[1]).index_add_(0, images.labels, features)
    distance = torch.cdist(features, sums / count[:, None])
    own = (sums[images.labels] - features) / (count[images.labels] - 1)[:, None]
    distance.scatter_(1, images.labels[:, None], (features - own).norm(dim=1, keepdim=True))
    wrong = (distance.argmin(1) != images.labels).double()
    share = torch.zeros(len(count), dtype=torch.float64).index_add_(0, images.labels, wrong) / count
    return tuple(
        images.classes[k] for k in share.argsort(descending=True, stable=True)[:CONFUSABLE].sort().values.tolist()
    )


def table(base: Bundle, old: Pair, new: Pair, smoke: bool) -> list[dict[str, Any]]:
    first = len(base.classes)
    seen = [answers(base.model, part, base.model.features) for part in (old[1], new[1])]
    before = 100 * float((base.model.head(seen[0]).argmax(1) == old[1].labels).double().mean())
    real = api.remember(base, old[0], "glne", {"memory": "features"}).memories["glne"].content.nbytes / first
    rows: list[dict[str, Any]] = []
    for name, (method, settings, looks) in METHODS.items():
        kept = api.remember(base, old[0], method, settings) if looks else base
        size = kept.memories[method].content.nbytes / first if looks else 0.0
        learns = method in ("finetune", "joint")
        for shots, draws in {5: 1}.items() if smoke else DRAWS.items():
            if smoke and learns:
                continue
            if method == "joint" and shots < max(DRAWS):
                continue  # the ceiling, once
            for seed in range(1 if learns else draws):
                grown = api.extend(kept, new[0], method=method, settings=settings, shots=shots, seed=seed)
                row = {
                    "method": name,
                    "shots": shots,
                    "seed": seed,
                    "bytes a class": size,
                    "share of real bytes": 100 * size / real,
                }
                rows.append({**row, "old before": before, **measured(grown, seen, old[1], new[1], first, learns)})
        if rows and rows[-1]["method"] == name:
            print({key: round(v, 2) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
    return rows


@torch.inference_mode()
def measured(grown: Bundle, seen: list[Tensor], old: Images, new: Images, first: int, moved: bool) -> dict[str, float]:
    """Per cent of images of old and new classes, and what the new ones capture."""
    model = grown.model
    logits = [answers(model, part) for part in (old, new)] if moved else [model.head(part) for part in seen]
    curve = tradeoff.curve(logits[0], old.labels, logits[1], new.labels + first, first)
    here = int(curve.offset.abs().argmin())
    found = {"old": curve.old[here], "new": curve.new[here], "harmonic": curve.achieved, "best": curve.best,
             "regret": curve.regret, "area": curve.area,
             "captured": (logits[0].argmax(1) >= first).double().mean()}  # fmt: skip
    return {key: 100 * float(value) for key, value in found.items()}


if __name__ == "__main__":
    main()
