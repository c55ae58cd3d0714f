"""Base logits before and after ``glne``, bit for bit: batch sizes, precisions, threads; batch-norm statistics untouched.

    python benchmarks/exact.py

Two real networks: the ImageNet MobileNetV2 (batch norm folded) and the CIFAR-10 ResNet-56 (batch norm with statistics),
each extended twice in a row.
"""

from __future__ import annotations

import copy
import itertools

import torch
from flowers import imagenet
from record import data, write

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.sources import open_source

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def main() -> None:
    rows = []
    cifar = api.import_model("cifar:resnet56", data() / "weights" / "resnet56-4bfd9763.th", CIFAR)
    flowers = data() / "flowers_dev" / "train"
    for name, base, test in (
        ("ImageNet MobileNetV2", imagenet(), data() / "imagenet_probe" / "test.parquet"),
        ("CIFAR-10 ResNet-56", cifar, data() / "cifar10" / "test.parquet"),
    ):
        photos = api.images_of(open_source(flowers), base.preparation)
        once = api.extend(base, photos.of(photos.classes[:5]), shots=5)
        twice = api.extend(once, photos.of(photos.classes[5:]), shots=5)
        images = next(api.chunks(base, [test], chunk=128))
        batch = images.view(torch.arange(128), torch.device("cpu"))
        for size, precision, threads in itertools.product((1, 2, 7, 128), (torch.float32, torch.bfloat16), (1, 2)):
            torch.set_num_threads(threads)
            before, after = logits(base, batch[:size], precision), logits(twice, batch[:size], precision)
            equal = torch.equal(before, after[:, : before.shape[1]])
            rows.append(
                {"network": name, "batch": size, "precision": str(precision)[6:], "threads": threads, "equal": equal}
            )
        state, grown = base.model.body.state_dict(), twice.model.body.state_dict()
        rows.append(
            {
                "network": name,
                "body tensors": len(state),
                "of them batch-norm statistics": sum("running_" in key for key in state),
                "equal": all(torch.equal(state[key], grown[key]) for key in state),
            }
        )
    for row in rows:
        print(row)
    write(
        "exact",
        "base logits before and after two extensions by glne, and every tensor of the body",
        n=len(rows),
        rows=rows,
    )
    assert all(row["equal"] for row in rows)


@torch.inference_mode()
def logits(bundle: Bundle, images: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """In fp32, or with the whole network and its input in bf16."""
    if precision == torch.float32:
        found: torch.Tensor = bundle.model(images)
    else:
        found = copy.deepcopy(bundle.model).to(precision)(images.to(precision))
    return found


if __name__ == "__main__":
    main()
