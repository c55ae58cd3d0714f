"""One of Avalanche's strategies through a whole stream, in Avalanche's own environment; see ``reference.py``.

    python avalanche_stream.py IMAGES.pt METHOD SEED CIFAR_RESNET.py

It writes one line: versions, seconds, and the accuracy on the classes seen so far after each experience. The network's file
is imported by its path, for classgraft is not installed here.
"""

from __future__ import annotations

import json
import os
import sys
import time

import avalanche
import torch
import torchvision
from avalanche.models import IncrementalClassifier
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, LwFPlugin, ReplayPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer
from avalanche.training.supervised import ICaRL, Naive
from avalanche_worker import networks, stream_of
from torch import nn
from torchvision import transforms


def main() -> None:
    path, method, seed, file = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Avalanche prints must not get among the answers
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    given = torch.load(path)
    torch.manual_seed(int(seed))
    classes, steps, epochs = given["classes"], given["steps"], given["epochs"]
    model = networks(file).build(given["network"], classes)
    crops = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    stream = stream_of(given, steps)
    usual = {"train_mb_size": given["batch_size"], "train_epochs": epochs, "eval_mb_size": 256,
             "evaluator": EvaluationPlugin()}  # fmt: skip

    def descending(rate: float = 1.0) -> tuple[torch.optim.Optimizer, LRSchedulerPlugin]:
        """SGD whose steps are those of a loss ``rate`` times as large; its rate starts anew with each experience."""
        optimizer = torch.optim.SGD(
            model.parameters(), given["lr"] * rate, 0.9, weight_decay=given["weight_decay"] / rate, nesterov=True
        )
        milestones = [round(share * epochs) for share in given["milestones"]]
        return optimizer, LRSchedulerPlugin(torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.1))

    if method == "icarl":
        head, model.linear = model.linear, nn.Identity()
        model = nn.ModuleDict({"body": model, "head": head})
        optimizer, schedule = descending(classes)  # its loss is a mean over classes, ours a sum
        strategy = ICaRL(feature_extractor=model["body"], classifier=model["head"], optimizer=optimizer, fixed_memory=True,
                         memory_size=given["exemplars"], buffer_transform=crops, plugins=[schedule],
                         **usual)  # fmt: skip
    else:
        model.linear = IncrementalClassifier(model.linear.in_features, classes // steps)
        optimizer, schedule = descending()
        buffer = ClassBalancedBuffer(given["exemplars"])
        replay = ReplayPlugin(given["exemplars"], storage_policy=buffer)
        plugins = {"finetune": [], "lwf": [LwFPlugin(1.0, 2.0)], "exemplars": [replay]}[method]
        strategy = Naive(
            model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), plugins=[schedule, *plugins], **usual
        )
    tests = transforms.Normalize(given["mean"], given["std"])(given["test"].float() / 255)
    started, seconds, seen = time.perf_counter(), 0.0, []
    for step, experience in enumerate(stream, 1):
        strategy.train(experience, num_workers=0)
        seconds += time.perf_counter() - started
        known = classes * step // steps
        here = given["test labels"] < known
        strategy.model.eval()
        with torch.inference_mode():
            logits = torch.cat([strategy.model(part) for part in tests[here].split(256)])[:, :known]
        seen.append(float((logits.argmax(1) == given["test labels"][here]).double().mean()))
        started = time.perf_counter()
    versions = {"avalanche": avalanche.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps({"versions": versions, "seconds": seconds, "seen": seen}), file=answer, flush=True)


if __name__ == "__main__":
    main()
