"""Intermediate activations of a network beside its features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classgraft.errors import InputError, nearest
from classgraft.models.classifier import Classifier


class Staged(nn.Module):
    """A body that also gives the activations of some of its parts, with their graph."""

    def __init__(self, body: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.names = body, names

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) to features (B, D) and then what each part gave last, such as a map (B, C', H', W')."""
        found: dict[str, Tensor] = {}

        def catch(name: str) -> torch.utils.hooks.RemovableHandle:
            return self.body.get_submodule(name).register_forward_hook(
                lambda module, given, output: found.update({name: output})
            )

        hooks = [catch(name) for name in self.names]
        try:
            features = self.body(images)
        finally:
            for hook in hooks:
                hook.remove()
        return [features, *(found[name] for name in self.names)]


@torch.no_grad()
def stages(body: nn.Module, images: Tensor) -> tuple[str, ...]:
    """The names of the parts that give the last map of each resolution above one pixel, from fine to coarse.

    In a residual network those are its stages. ``images`` (B, C, H, W) are looked at once; the body is in evaluation mode.

    Raises:
        InputError: there are no such maps.
    """
    last: dict[tuple[int, ...], str] = {}
    hooks = []
    for name, part in body.named_modules():

        def note(module: nn.Module, given: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                last[tuple(output.shape[2:])] = name

        hooks += [part.register_forward_hook(note)] if name else []
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise InputError(
            f"{type(body).__name__} has no intermediate maps (B, C, H, W) to compare; choose a method that compares answers."
        )
    return tuple(sorted(last.values(), key=lambda name: -max(a * b for (a, b), n in last.items() if n == name)))


class Tapped(nn.Module):
    """A classifier, not a copy of it, that also gives the activations of some parts of its body, with their graph."""

    def __init__(self, model: Classifier, *names: str) -> None:
        super().__init__()
        self.body, self.head = Staged(model.body, names), model.head

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) to logits (B, K) and then the activation of each part."""
        features, *found = self.body(images)
        return [self.head(features), *found]


def pairs(student: Classifier, teacher: Classifier, words: Sequence[str], images: Tensor) -> list[tuple[str, str]]:
    """Parts of the student's body and of the teacher's that belong together.

    Args:
        student: in evaluation mode.
        teacher: likewise.
        words: as "layer3=blocks.4", the student's part first; none: each of the student's stages with the teacher's at
            the same share of its stages.
        images: (B, C, H, W), looked at once.

    Raises:
        InputError: there is no such part, or there are no stages.
    """
    if not words:
        own, others = stages(student.body, images), stages(teacher.body, images)
        return [(name, others[-(-(i + 1) * len(others) // len(own)) - 1]) for i, name in enumerate(own)]
    found = []
    for word in words:
        own_name, equals, other = word.partition("=")
        if not equals:
            raise InputError(f"'{word}' names no pair of layers; write student's=teacher's, such as layer3=layer4.")
        for side, model, name in (("student", student, own_name), ("teacher", teacher, other)):
            known = [part for part, _ in model.body.named_modules() if part]
            if name not in known:
                hint = nearest(name, known).partition(" Known")[0]
                raise InputError(
                    f"The {side} has no layer '{name}'.{hint} Name a part of its body, such as '{known[-1]}'."
                )
        found.append((own_name, other))
    return found
