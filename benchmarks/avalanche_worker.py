"""Avalanche's fine-tuning on the images of ``speed.py``, in Avalanche's own environment: an epoch for each line read.

    python avalanche_worker.py IMAGES.pt NETWORK BATCH_SIZE WORKERS CIFAR_RESNET.py

Writes a line of versions, then one of seconds for each line read. It imports the network's file by its path, for
classgraft is not installed here.
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
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.transform_groups import DefaultTransformGroups
from avalanche.training.plugins import EvaluationPlugin
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


def main() -> None:
    path, network, batch_size, workers, file = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Avalanche prints must not get among the answers
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    spec = importlib.util.spec_from_file_location("cifar_resnet", file)
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    given = torch.load(path)
    torch.manual_seed(0)
    model = nets.build(network, given["classes"])
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(given["mean"], given["std"]),
    ]
    groups = DefaultTransformGroups(transforms.Compose(steps))
    data: AvalancheDataset = as_classification_dataset(Pictures(given["pixels"], given["labels"]), groups)
    experience = benchmark_from_datasets(train=[data]).train_stream[0]
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=int(batch_size),
        train_epochs=1,
        evaluator=EvaluationPlugin(),
    )
    versions = {"avalanche": avalanche.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps(versions), file=answer, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        strategy.train(experience, num_workers=int(workers))
        print(time.perf_counter() - started, file=answer, flush=True)


if __name__ == "__main__":
    main()
