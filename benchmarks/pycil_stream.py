"""One of PyCIL's learners through a whole stream, in its own code; see ``reference.py``.

    python pycil_stream.py CHECKOUT IMAGES.pt METHOD SEED

CHECKOUT is a clone of github.com/G-U-N/PyCIL (LAMDA-CL). Its learners take their recipe from constants of their files, which
are set here, and images from its ``DataManager``, in whose place stands one that has them in memory. PyCIL looks at test
images in every fifth epoch, for its log alone; that is left out. It writes one line: versions, seconds, and the accuracy
on the classes seen so far after each step.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

CLASSES = {"der": "DER", "wa": "WA", "icarl": "iCaRL"}


class Pictures(Dataset[Any]):
    """Places, images and labels, as PyCIL's loaders give them."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, change: Any) -> None:
        self.pixels, self.labels, self.change = pixels, labels, change

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[int, torch.Tensor, int]:
        return place, self.change(torch.from_numpy(self.pixels[place])), int(self.labels[place])


class Manager:
    """What PyCIL's learners ask of its ``DataManager``."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.size = given["classes"] // given["steps"]
        self.parts = {"train": (given["pixels"].numpy(), given["labels"].numpy()),
                      "test": (given["test"].numpy(), given["test labels"].numpy())}  # fmt: skip
        plain = [transforms.ConvertImageDtype(torch.float32), transforms.Normalize(given["mean"], given["std"])]
        moved = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        self.changes = {"test": transforms.Compose(plain), "train": transforms.Compose([*moved, *plain])}

    def get_task_size(self, task: int) -> int:
        return int(self.size)

    def get_dataset(
        self, indices: Any, source: str, mode: str, appendent: Any = None, ret_data: bool = False
    ) -> Pictures | tuple[np.ndarray, np.ndarray, Pictures]:
        pixels, labels = self.parts[source]
        own = np.isin(labels, np.asarray(indices, dtype=labels.dtype))
        pixels, labels = pixels[own], labels[own]
        if appendent is not None and len(appendent[0]):
            pixels = np.concatenate([pixels, appendent[0]])
            labels = np.concatenate([labels, appendent[1]])
        found = Pictures(pixels, labels, self.changes[mode])
        return (pixels, labels, found) if ret_data else found


def main() -> None:
    checkout, path, method, seed = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever PyCIL prints must not get among the answers
    sys.path.insert(0, checkout)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    given = torch.load(path)
    torch.manual_seed(int(seed))
    base, networks, nets, learners = map(
        importlib.import_module, ("models.base", "convs.cifar_resnet", "utils.inc_net", f"models.{method}")
    )
    nets.get_convnet = lambda *_: getattr(networks, given["network"])()
    milestones = [round(share * given["epochs"]) for share in given["milestones"]]
    for first in ("init_epoch", "epochs"):
        setattr(learners, first, given["epochs"])
    for name, value in {"milestones": milestones, "weight_decay": given["weight_decay"]}.items():
        setattr(learners, name, value)
        setattr(learners, f"init_{name}", value)
    learners.init_lr = learners.lrate = given["lr"]
    learners.batch_size = given["batch_size"]
    optim = type("optim", (), {"SGD": functools.partial(torch.optim.SGD, nesterov=True),
                               "lr_scheduler": torch.optim.lr_scheduler})  # fmt: skip
    learners.optim = optim  # as ours; its own has no Nesterov momentum
    for file in (base, learners):  # no worker processes: images are in memory
        file.DataLoader = lambda data, num_workers=0, **more: DataLoader(data, **more)
    arguments = {"convnet_type": "resnet32", "memory_size": given["exemplars"], "device": [torch.device("cpu")]}
    learner = getattr(learners, CLASSES[method])(arguments)
    learner._compute_accuracy = lambda *_: 0.0
    learner.topk = 1
    manager, seconds, seen = Manager(given), 0.0, []
    for _ in range(given["steps"]):
        started = time.perf_counter()
        learner.incremental_train(manager)
        learner.after_task()
        seconds += time.perf_counter() - started
        if method == "icarl":
            found, true = learner._eval_nme(learner.test_loader, learner._class_means)
        else:
            found, true = learner._eval_cnn(learner.test_loader)
        seen.append(float((found[:, 0] == true).mean()))
    versions = {"torch": torch.__version__}
    print(json.dumps({"versions": versions, "seconds": seconds, "seen": seen}), file=answer, flush=True)


if __name__ == "__main__":
    main()
