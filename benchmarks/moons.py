"""Two moons and six labels: where each way of training puts the boundary, as a picture.

    python benchmarks/moons.py            # a minute or two
    python benchmarks/moons.py --short    # does it run at all

Three labelled points and 200 unlabelled ones a moon; accuracy on 2,000 others. A network of two hidden layers of 64 units, the
same recipe for every row and settings fixed beforehand; five seeds of weights and points, the picture is of the first.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from record import RESULTS, add
from sklearn.datasets import make_moons
from torch import nn

from classgraft.data.images import Images
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.selftrainers.ict import ICT
from classgraft.selftrainers.meta_pseudo_labels import MetaPseudoLabels
from classgraft.selftrainers.pseudo_labels import PseudoLabels
from classgraft.selftrainers.vat import VAT
from classgraft.trainers.plain import Plain
from classgraft.training.answers import answers, forget
from classgraft.training.recipe import Recipe
from classgraft.verbs import SelfTrainer

CLASSES = ("upper", "lower")
AS_IT_IS = Preparation(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
WIDE, HIGH, SCALE = (-1.6, 2.6), (-1.1, 1.6), 80
"""What is drawn of the plane, and pixels a unit."""
COLOURS = np.array([[27, 108, 168], [200, 85, 61]])


def points(places: np.ndarray, labels: np.ndarray) -> Images:
    return Images(torch.from_numpy(places).float()[:, :, None, None], torch.from_numpy(labels), CLASSES, AS_IT_IS)


def some(count: int, seed: int) -> Images:
    return points(*make_moons(count, noise=0.1, random_state=seed))


def network(seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        return Classifier(body, Head([nn.Linear(64, 2)]), CLASSES).eval()


def methods(recipe: Recipe) -> dict[str, SelfTrainer | Plain]:
    # without views there is nothing to agree upon: the teacher learns from labels and from the feedback alone
    guided = MetaPseudoLabels(consistency=0.0, ratio=16, strong="none", recipe=recipe)
    return {
        "labels alone": Plain(recipe=recipe),
        "pseudo-labels": PseudoLabels(ratio=16, recipe=recipe),
        "vat": VAT(ratio=16, radius=0.2, recipe=recipe),
        "ict": ICT(ratio=16, strength=10.0, decay=0.99, recipe=recipe),
        "meta pseudo labels": guided,
        "meta pseudo labels, no feedback": replace(guided, feedback=0.0),
    }


def drawn(model: Classifier, known: Images, free: Images) -> Image.Image:
    """Which side is whose, the unlabelled points in grey and the labelled ones large."""
    across, down = (round(SCALE * (end - start)) for start, end in (WIDE, HIGH))
    x, y = np.meshgrid(np.linspace(*WIDE, across), np.linspace(*HIGH[::-1], down))
    plane = points(np.stack([x.ravel(), y.ravel()], 1), np.zeros(x.size, dtype=np.int64))
    share = answers(model, plane).softmax(1)[:, 1:].double().numpy()
    paint = 255 - 0.45 * (255 - ((1 - share) * COLOURS[0] + share * COLOURS[1]))
    image = Image.fromarray(paint.reshape(down, across, 3).round().astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for part, size in ((free, 1), (known, 5)):
        for (px, py), label in zip(part.pixels.flatten(1).tolist(), part.labels.tolist(), strict=True):
            left, top = SCALE * (px - WIDE[0]), SCALE * (HIGH[1] - py)
            fill = tuple(COLOURS[label].tolist()) if size > 1 else (90, 90, 90)
            edge = (0, 0, 0) if size > 1 else None
            pen.ellipse((left - size, top - size, left + size, top + size), fill=fill, outline=edge)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--short", action="store_true", help="one seed, few epochs, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "moons.json"
    rows: list[dict[str, Any]] = []
    if path.exists() and not given.short:
        rows = json.loads(path.read_text("utf-8"))["rows"]
    done = {(row["row"], row["seed"]) for row in rows}
    shown = []
    for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]:
        free, test = some(400, 10 + seed), some(2000, 1000 + seed)
        known, hidden = some(200, 100 + seed).shots(3, seed), replace(free, labels=torch.zeros_like(free.labels))
        epochs = 2 if given.short else 120
        recipe = Recipe(epochs, 6, lr=0.05, weight_decay=1e-3, milestones=(), augment="none", seed=seed)
        for name, method in methods(recipe).items():
            if (name, seed) in done and (seed or given.short):
                continue  # those of the first seed are run again for the picture
            start = network(seed)
            if isinstance(method, Plain):
                longer = replace(method, recipe=replace(recipe, epochs=recipe.epochs * 5))
                model = longer.train(start, known)
            else:
                model = method.train(start, start, known, hidden)
            accuracy = 100 * float((answers(model, test).argmax(1) == test.labels).double().mean())
            if not seed:
                shown.append(drawn(model, known, free))
            forget()
            if (name, seed) not in done:
                rows.append({"row": name, "seed": seed, "accuracy": accuracy})
                print(rows[-1], flush=True)
                if not given.short:
                    rows = add("moons", __doc__.split("\n\n")[2].replace("\n", " "), rows)
    if shown and not given.short:
        wide, high = shown[0].size
        sheet = Image.new("RGB", (3 * wide + 16, 2 * high + 8), (255, 255, 255))
        for i, image in enumerate(shown):
            sheet.paste(image, ((i % 3) * (wide + 8), (i // 3) * (high + 8)))
        sheet.save(RESULTS.parents[1] / "docs" / "moons.png")


if __name__ == "__main__":
    main()
