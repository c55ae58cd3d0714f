"""Whole streams beside Avalanche 0.6 and PyCIL: the same images, order, network, recipe and number of exemplars.

    python benchmarks/reference.py --avalanche PYTHON [--seeds 0 1 2] [--only icarl exemplars]
    python benchmarks/reference.py --pycil CHECKOUT [--only der wa]
    python benchmarks/reference.py --avalanche PYTHON --pycil CHECKOUT --short     # does it run at all

CIFAR-10, 500 images a class, in five steps of two classes; ResNet-20, 20 epochs a step at batch 64, 200 exemplars. Avalanche's
heads grow by rows at random but for iCaRL's, which has all rows from the start; answers are among the classes seen so far.
Its iCaRL averages its loss over classes where ours and the paper add up, so that its rate is ten times ours and its decay a
tenth, which makes the same steps. Its replay buffer is balanced by class, and half of every batch is from it, as is its way.
PyCIL's iCaRL has a softmax and distils its logits, where ours and the paper have a sigmoid a class. Its DER has no balanced
stage but aligns its rows, so ours does here, too; neither masks. A cell that is in the results is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, add, data

from classgraft import api
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.evaluator.bench import bench
from classgraft.evaluator.protocols import Equal
from classgraft.evaluator.settings import Setting
from classgraft.evaluator.start import Start
from classgraft.models import cifar_resnet
from classgraft.training.recipe import Recipe

METHODS = {"avalanche": ("finetune", "exemplars", "icarl", "lwf"), "pycil": ("der", "wa", "icarl")}
SAME: dict[str, dict[str, dict[str, Any]]] = {"lwf": {"lwf": {"warm_up": 0.0}}, "der": {"der": {"finish": "aligned"}}}
"""Settings of ours, where the other has no such thing, or another."""
SETTING = Setting(
    Equal(2, 2, 10), start=Start("cifar:resnet20"), orders=("given",), exemplars=200, recipe=Recipe(epochs=20)
)
SHORT = replace(SETTING, recipe=Recipe(epochs=1))


def pictures(part: str, short: bool) -> Images:
    preparation = SETTING.start.preparation(32)
    found = api.images_of(open_source(data() / "cifar10" / f"{part}.parquet"), preparation)
    return found.shots(100, 0) if short else found


def ours(method: str, seed: int, train: Images, test: Images, setting: Setting) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (line,) = bench(
            [method], train, test, out=folder, protocol=setting, seeds=(seed,), settings=SAME.get(method, {})
        )["methods"][method]
    return {"seen": line["seen"], "seconds": line["seconds"]}


def theirs(
    side: str, where: str, method: str, seed: int, train: Images, test: Images, setting: Setting
) -> dict[str, Any]:
    recipe, preparation = setting.recipe, train.preparation
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.pt")
        torch.save(
            {"pixels": train.pixels, "labels": train.labels, "test": test.pixels, "test labels": test.labels,
             "classes": len(train.classes), "steps": 5, "mean": preparation.mean, "std": preparation.std,
             "network": "resnet20", "exemplars": setting.exemplars, "epochs": recipe.epochs, "lr": recipe.lr,
             "batch_size": recipe.batch_size, "weight_decay": recipe.weight_decay, "milestones": recipe.milestones}, path,
        )  # fmt: skip
        script = str(Path(__file__).with_name(f"{side}_stream.py"))
        words = {
            "avalanche": [where, script, str(path), method, str(seed), str(cifar_resnet.__file__)],
            "pycil": [sys.executable, script, where, str(path), method, str(seed)],
        }[side]
        return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = list(dict.fromkeys(method for methods in METHODS.values() for method in methods))
    parser.add_argument("--avalanche", help="a Python that has avalanche-lib")
    parser.add_argument("--pycil", help="the folder of a clone of PyCIL")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--short", action="store_true", help="few images and epochs, nothing is written to the results")
    given = parser.parse_args()
    path, setting = RESULTS / "reference.json", SHORT if given.short else SETTING
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() and not given.short else []
    train, test = pictures("train", given.short), pictures("test", given.short)
    others = {side: getattr(given, side) for side in METHODS if getattr(given, side)}
    for seed in given.seeds[: 1 if given.short else None]:
        for method in given.only:
            sides = [side for side in others if method in METHODS[side]]
            for side in [*sides, "ours"] if sides else []:
                if any((row["side"], row["method"], row["seed"]) == (side, method, seed) for row in rows):
                    continue
                if side == "ours":
                    found = ours(method, seed, train, test, setting)
                else:
                    found = theirs(side, others[side], method, seed, train, test, setting)
                seen = found["seen"]
                row = {"side": side, "method": method, "seed": seed, "average": sum(seen) / len(seen), "last": seen[-1]}
                rows.append({**row, **found})
                print(rows[-1], flush=True)
                if not given.short:
                    rows = add("reference", "CIFAR-10, 500 images a class, in five steps of two classes; ResNet-20, 20 epochs a"
                          " step at batch 64, SGD 0.1, 200 exemplars", rows, same=("side", "method", "seed"),
                          n=len(test))  # fmt: skip


if __name__ == "__main__":
    main()
