"""One of Avalanche's strategies on the images of ``speed.py``, in Avalanche's own environment.

    python avalanche_worker.py IMAGES.pt METHOD NETWORK BATCH_SIZE WORKERS SEED FIRST_EPOCHS EPOCHS CIFAR_RESNET.py

It learns all experiences but the last, then waits for a line before each epoch on that. It writes a line of versions and
of rates for the Fisher information, the seconds of each epoch, and in the end the accuracies on the test images.
It imports the network's file by its path, for classgraft is not installed here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time

import avalanche
import numpy as np
import torch
import torchvision
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, LwFPlugin, SupervisedPlugin
from avalanche.training.supervised import Naive
from PIL import Image
from torchvision import transforms


class Pictures(torch.utils.data.Dataset):
    """PIL images and labels, as Avalanche's own CIFAR data set gives them."""

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        self.pixels, self.targets = pixels.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.ascontiguousarray(self.pixels[place])), self.targets[place]


class Clock(SupervisedPlugin):
    """Waits for a line before each epoch, and writes its seconds after it."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer, self.runs = answer, False

    def before_training_epoch(self, strategy, **_) -> None:
        if self.runs:
            if not sys.stdin.readline():
                strategy.stop_training()
            self.started = time.perf_counter()

    def after_training_epoch(self, strategy, **_) -> None:
        if self.runs:
            print(time.perf_counter() - self.started, file=self.answer, flush=True)


def stream_of(given: dict, experiences: int):
    """The training experiences, classes in their order, cropped and mirrored as usual."""
    last = [transforms.ToTensor(), transforms.Normalize(given["mean"], given["std"])]
    crops = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    return nc_benchmark(
        Pictures(given["pixels"], given["labels"]),
        Pictures(given["test"], given["test labels"]),
        n_experiences=experiences,
        task_labels=False,
        fixed_class_order=list(range(given["classes"])),
        train_transform=transforms.Compose(crops + last),
        eval_transform=transforms.Compose(last),
    ).train_stream


def networks(file: str):
    """The module at this path."""
    spec = importlib.util.spec_from_file_location("cifar_resnet", file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def main() -> None:
    path, method, network, *numbers, file = sys.argv[1:]
    batch_size, workers, seed, first_epochs, epochs = map(int, numbers)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Avalanche prints must not get among the answers
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    given = torch.load(path)
    torch.manual_seed(seed)
    model = networks(file).build(network, given["classes"])
    if given["grows"]:
        model.linear = IncrementalClassifier(model.linear.in_features, given["classes"] // given["experiences"])
    count = given["experiences"]
    stream = stream_of(given, count)
    optimizer = torch.optim.SGD(model.parameters(), given["lr"], 0.9, weight_decay=1e-4, nesterov=True)
    clock = Clock(answer)
    ewc = EWCPlugin(given["strength"] * batch_size / 2)  # its Fisher information is of batch means, without the half
    plugins = {"finetune": [], "lwf": [LwFPlugin(1.0, 2.0)], "ewc": [ewc]}[method]
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=batch_size,
        train_epochs=first_epochs,
        plugins=[clock, *plugins],
        evaluator=EvaluationPlugin(),
    )
    for experience in stream[: count - 1]:
        strategy.train(experience, num_workers=workers)
    fisher = []
    for _ in range(3 if method == "ewc" and not given["grows"] else 0):
        started = time.perf_counter()
        ewc.compute_importances(
            model, torch.nn.CrossEntropyLoss(), optimizer, stream[0].dataset, "cpu", batch_size, workers
        )
        fisher.append(len(stream[0].dataset) / (time.perf_counter() - started))
    versions = {"avalanche": avalanche.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps({"versions": versions, "fisher": fisher}), file=answer, flush=True)
    clock.runs, strategy.train_epochs = True, epochs
    strategy.train(stream[count - 1], num_workers=workers)
    strategy.model.eval()
    tests = transforms.Normalize(given["mean"], given["std"])(given["test"].float() / 255)
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in tests.split(256)])
    labels, olds = given["test labels"], given["classes"] * (count - 1) // count
    old, right = labels < olds, logits.argmax(1) == labels
    among = logits[old, :olds].argmax(1) == labels[old]
    accuracies = {"old": right[old], "new": right[~old], "all": right, "old among old": among}
    print(json.dumps({name: float(part.float().mean()) for name, part in accuracies.items()}), file=answer, flush=True)


if __name__ == "__main__":
    main()
