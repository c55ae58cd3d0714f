"""What ``test_distributed.py`` runs in two processes: ``torchrun together.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from small import classifier, images

from classgraft.catalogue import selftrainer
from classgraft.training.answers import answers
from classgraft.training.carries import digest
from classgraft.training.distributed import world
from classgraft.training.engine import engine
from classgraft.training.journal import keeping
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe

COUNT = 51
RECIPE = Recipe(epochs=3, batch_size=10, lr=0.05)
"""Batches of 5 + 5, and a last one of a single image, which both take."""

REMEMBERING = {"temporal-ensembling": 14, "remixmatch": 28, "meta-pseudo-labels": 60}
"""Methods that remember more than weights, and the look at images, in the third epoch, at which the machine stops."""


class Stopped(Exception):
    """The machine stops."""


def trained(folder: Path, dropout: float, seed: int, stop_at: int | None = None) -> dict[str, object]:
    """A fit in a run folder."""
    model, seen, steps = classifier(dropout, seed), images(COUNT), iter(range(1000))

    def objective(batch: Batch) -> Terms:
        if next(steps) == stop_at:
            raise Stopped
        logits = model(batch.images)
        return {"class": F.cross_entropy(logits, batch.targets), "size": 0.1 * model.head.blocks[0].bias.square().sum()}

    with engine(precision="fp32"), keeping(folder, every=0.0):
        history = fit(model, objective, seen, RECIPE)
    return {
        "model": model.state_dict(),
        "history": history.epochs,
        "answers": answers(model, seen),
        "digest": digest(model),
    }


def taught(folder: Path, method: str, stop_at: int | None = None) -> str:
    """Self-training in a run folder, by a method that carries more than weights."""
    model, steps = classifier(0.5, 0), iter(range(1000))

    def step(*_: object) -> None:
        if next(steps) == stop_at:
            raise Stopped

    model.body.register_forward_hook(step)
    settings = {"ratio": 1, "epochs": RECIPE.epochs, "batch_size": RECIPE.batch_size}
    with engine(precision="fp32"), keeping(folder, every=0.0):
        return digest(selftrainer(method, settings).train(model, model, images(12), images(COUNT)))


def main(folder: Path) -> None:
    rank = world().rank
    # rank 1 starts elsewhere: everybody gets the weights of rank 0
    torch.save(trained(folder / "plain", 0.0, seed=rank), folder / f"plain.{rank}")
    torch.save(trained(folder / "dropout", 0.5, seed=0), folder / f"dropout.{rank}")
    try:
        trained(folder / "broken", 0.5, 0, stop_at=9)
    except Stopped:
        torch.save(trained(folder / "broken", 0.5, 0), folder / f"broken.{rank}")
    for method, stop_at in REMEMBERING.items():
        whole = taught(folder / method, method)
        try:
            taught(folder / f"{method}-broken", method, stop_at)
        except Stopped:
            broken = taught(folder / f"{method}-broken", method)
            torch.save({"whole": whole, "broken": broken}, folder / f"{method}.{rank}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
