"""Where the weights of a trained network were and how much each matters; what holds them there later."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.losses.penalties import quadratic


@dataclass(frozen=True)
class Importance:
    """A quadratic around ``anchor``. Rows that were added to a head since then are in neither part."""

    anchor: dict[str, Tensor]
    """Values of the weights, by parameter name, on the CPU."""
    importance: dict[str, Tensor]
    """Of each weight, at least 0, of the same shape."""

    def without(self, names: Sequence[str]) -> Importance:
        """Of the head, which does not know here whose its rows are, nothing is left; of the body all, a sum over classes."""
        parts = [
            {k: v for k, v in part.items() if not k.startswith("head.")} for part in (self.anchor, self.importance)
        ]
        return Importance(*parts)


def around(model: nn.Module, importance: dict[str, Tensor]) -> Importance:
    """Around the weights as they are."""
    anchor = {name: model.get_parameter(name).detach().cpu().clone() for name in importance}
    return Importance(anchor, {name: part.cpu() for name, part in importance.items()})


def summed(before: Importance | None, now: Importance, decay: float = 1.0) -> Importance:
    """The quadratic of before, times ``decay``, and that of now, up to a constant: one around the anchors' weighted mean.

    A penalty for each task, none of whose anchors ever moves, in the memory of a single one.
    """
    if before is None:
        return now
    anchor, total = dict(now.anchor), dict(now.importance)
    for name, kept in _still_there(before, now).items():
        old = decay * kept
        total[name] = old + now.importance[name]
        share = torch.where(total[name] > 0, old / total[name], 0)
        anchor[name] = torch.lerp(now.anchor[name], before.anchor[name], share)
    return Importance(anchor, total)


def moved(before: Importance | None, now: Importance, decay: float = 1.0) -> Importance:
    """One quadratic around the latest weights, with the importance of before times ``decay`` and that of now."""
    old = _still_there(before, now) if before else {}
    total = {name: part + decay * old[name] if name in old else part for name, part in now.importance.items()}
    return Importance(now.anchor, total)


def _still_there(before: Importance, now: Importance) -> dict[str, Tensor]:
    """The importance of before but for rows of a head that was made anew since: nothing is left of what they did.

    Raises:
        InputError: it is of another body.
    """
    gone = _misfits(before.importance, now.importance)
    if bad := [name for name in gone if not name.startswith("head.")]:
        raise _of_another(bad[0])
    return {name: part for name, part in before.importance.items() if name not in gone}


def _misfits(kept: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> list[str]:
    """The parts that are not known by their name and shape."""
    return [name for name, part in kept.items() if name not in known or known[name].shape != part.shape]


def _of_another(part: str) -> InputError:
    return InputError(f"What was remembered does not fit the network (its part '{part}'); remember it again.")


def check_seen(memory: Importance, model: nn.Module) -> None:
    """Refuse to go on where classes came since it was remembered: nothing would hold their rows.

    Raises:
        InputError: it has some of the head's parameters and not others; where it has none, a class was removed.
    """
    head = [name for name, _ in model.named_parameters() if name.startswith("head.")]
    if 0 < sum(name in memory.anchor for name in head) < len(head):
        raise InputError(
            "Classes were added that this method has not looked at, so that they would be forgotten; give images of all old"
            " classes with --old-images, or choose the method that added them."
        )


def holding(model: nn.Module, memory: Importance, strength: float, lr: float) -> Callable[[], Tensor]:
    """The penalty strength * sum importance * (weight - anchor)^2 on the model as it then is.

    strength * importance is cut at 1 / (2 lr), where one step of gradient descent goes all the way back to the anchor:
    beyond it a step would shoot over, further at every step, and it could hold the weight no better.

    Raises:
        InputError: the memory is of another network.
    """
    parameters = dict(model.named_parameters())
    if bad := _misfits(memory.anchor, parameters):
        raise _of_another(bad[0])
    weights = [parameters[name] for name in memory.anchor]
    limit = 0.5 / max(lr, 1e-9)

    @functools.cache
    def parts() -> tuple[list[Tensor], list[Tensor]]:
        """Anchors and pulls where the weights are and in their layout, which is settled when the run starts."""
        like = [torch.empty_like(weight, requires_grad=False) for weight in weights]
        anchors = [part.copy_(memory.anchor[name]) for name, part in zip(memory.anchor, like, strict=True)]
        pulls = [(strength * memory.importance[name]).clamp(max=limit) for name in memory.anchor]
        return anchors, [torch.empty_like(part).copy_(pull) for part, pull in zip(like, pulls, strict=True)]

    return lambda: quadratic(weights, *parts())
