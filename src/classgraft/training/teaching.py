"""What distillation starts from: a teacher that stands still, a copy of the student that learns, and what it is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.keypoints import Locator, Watcher
from classgraft.models.segmenter import Segmenter
from classgraft.models.stages import Tapped
from classgraft.training.answers import REMEMBERED, answers, asked
from classgraft.training.loop import Batch

Teacher = TypeVar("Teacher", Classifier, Segmenter, Locator)
Student = TypeVar("Student", Classifier, Segmenter, Locator, Watcher)


def seated(teacher: Teacher, student: Student, images: Images) -> tuple[Teacher, Student, Images]:
    """A frozen copy of the teacher, a copy of the student whose weights are all free, and the images.

    Labels are places in the teacher's classes; unlabelled images have no classes.

    Raises:
        InputError: teacher and student do not have the same classes, or there is no image of them.
    """
    if student.classes != teacher.classes:
        raise InputError(
            f"The student's {len(student.classes)} classes are not the teacher's {len(teacher.classes)};"
            " give it the same names in the same order."
        )
    found = images.of(teacher.classes) if images.classes else images
    if not len(found):
        raise InputError("There is no image to distill with: none is of the teacher's classes; give some of those.")
    return frozen(teacher), copy.deepcopy(student).eval().requires_grad_(True), found


def seated_classifiers(
    teacher: Classifier, student: Classifier, images: Images
) -> tuple[Classifier, Classifier, Images]:
    """Likewise, of classifiers alone."""
    if not isinstance(teacher, Classifier) or not isinstance(student, Classifier):
        raise InputError(
            "kd, fitnets and similarity distill classifiers; for networks that label every pixel take structured, for"
            " those that find keypoints part-experts."
        )
    return seated(teacher, student, images)


def told(teacher: Tapped, images: Images, augment: str) -> Callable[[Batch], list[Tensor]]:
    """What a frozen teacher says to a batch of these images: logits (B, K), then the activations of its named parts.

    Looked up, where every epoch shows the images alike (``augment`` "none") and what it says to all of them is small
    enough to be remembered; else asked for, about the very view that the student sees.
    """
    device = next(teacher.parameters()).device

    def flat(given: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in teacher(given)], 1)

    with torch.inference_mode():
        shapes = [part.shape[1:] for part in teacher(images.view(torch.arange(1), device))]
    sizes = [shape.numel() for shape in shapes]

    def parts(rows: Tensor) -> list[Tensor]:
        return [part.unflatten(1, shape) for part, shape in zip(rows.split(sizes, 1), shapes, strict=True)]

    if augment != "none" or 4 * sum(sizes) * len(images) > REMEMBERED:
        return lambda batch: parts(asked(teacher, batch.images, flat))
    table = answers(teacher, images, flat, what="asking the teacher").to(device)
    return lambda batch: parts(table[batch.index])
