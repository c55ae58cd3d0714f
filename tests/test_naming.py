"""Unlabelled photos in an extension: which are taken, and that what is taken helps if it is named right."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from classgraft.catalogue import extender
from classgraft.data.images import Images, Task
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.selftrainers.pseudo_labels import named

AS_IT_IS = Preparation(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
OLD, NEW = ("ant", "bee", "cow"), ("dog", "elk", "fox", "gnu")


def features(values: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Images:
    """Features (N, D) as images."""
    return Images(values[:, :, None, None], labels, classes, AS_IT_IS)


def rows(weight: Tensor, classes: tuple[str, ...]) -> Classifier:
    linear = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.zero_()
    return Classifier(nn.Flatten(), Head([linear]), classes).eval()


def test_those_surely_of_a_new_class_are_taken_and_the_others_left() -> None:
    grown = rows(torch.tensor([[0.0], [1.0], [-1.0]]), ("ant", "dog", "elk"))  # logits 0, x and -x
    photo = features(torch.tensor([[3.0]]), torch.tensor([1]), ("elk", "dog"))
    # sure of dog; favours dog at 0.67; sure of elk; favours ant; just sure of dog
    free = features(torch.tensor([[5.0], [1.0], [-5.0], [0.0], [1.6]]), torch.zeros(5, dtype=torch.int64), ("",))
    found = named(Task(("elk", "dog"), photo, free), grown, 0.8)
    assert found.train.pixels.flatten().tolist() == [3.0, 5.0, -5.0, torch.tensor(1.6).item()]
    assert found.train.labels.tolist() == [1, 1, 0, 1]
    assert found.train.classes == ("elk", "dog")
    assert len(named(Task(("elk", "dog"), photo, free), grown, 0.0).train) == 5  # all but the one of the old class
    assert len(named(Task(("elk", "dog"), photo), grown).train) == 1


def test_photos_that_it_names_itself_help_and_the_same_with_shuffled_names_do_not() -> None:
    random = torch.Generator().manual_seed(0)
    centres = 3 * torch.nn.functional.normalize(torch.randn(7, 24, generator=random), dim=1)

    def drawn(count: int) -> Images:
        labels = torch.arange(4).repeat_interleave(count)
        return features(centres[3 + labels] + 0.6 * torch.randn(len(labels), 24, generator=random), labels, NEW)

    model, test = rows(centres[:3], OLD), drawn(50)
    task = Task(NEW, drawn(1), replace(drawn(30), labels=torch.zeros(120, dtype=torch.int64), classes=("",)))
    method = extender("glne", {"views": 1})

    def right(task: Task) -> float:
        grown = method.extend(model, None, task)
        with torch.no_grad():
            return float((grown(test.pixels).argmax(1) == 3 + test.labels).double().mean())

    found = named(task, method.extend(model, None, task), 0.5)
    assert len(found.train) > 30
    labels = found.train.labels.clone()
    labels[4:] = labels[4:][torch.randperm(len(labels) - 4, generator=random)]
    wrong = replace(found, train=replace(found.train, labels=labels))
    assert right(found) > right(task) + 0.02
    assert right(wrong) < right(task)
