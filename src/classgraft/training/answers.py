"""The one pass in evaluation mode: features or logits of many images, in fp32, batch by batch; nothing looked at twice."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

from classgraft.data.augment import Augment, centre
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.training.carries import digest
from classgraft.training.distributed import gathered, world
from classgraft.training.engine import current
from classgraft.training.hardware import keep_memory
from classgraft.training.loop import report

BATCH = 64
"""Images a forward pass, at most."""
PIXELS = 4 * 224 * 224
"""Pixels a forward pass on a CPU: the activations of more go beyond its caches, and beyond what the C library keeps."""
LONG = 200 * 224 * 224
"""Pixels from which on it is told to keep what one pass frees for the next: without it, and with large batches, a
MobileNetV2 spends more than half of its time on fresh pages, each of which the system clears."""
REMEMBERED = 256 << 20
"""Bytes of answers that are remembered; the longest unused go first."""

_remembered: OrderedDict[str, Tensor] = OrderedDict()
_lock = Lock()
"""Held while that is looked into or changed: several threads may ask."""


def answers(
    module: nn.Module,
    images: Images,
    of: Callable[[Tensor], Tensor] | None = None,
    augment: Augment = centre,
    seed: int = 0,
    epoch: int = 0,
    what: str = "looking at images",
) -> Tensor:
    """What ``of`` (the module itself: None) gives for every image, (N, ...) on the CPU; the module's mode is left alone.

    Remembered by the fingerprints of weights and images, where ``of`` is the module or a method of it and ``augment`` a
    function of some module, so that their names say what they do.
    """
    key = _key(module, images, of, augment, seed, epoch)
    with _lock:
        if key in _remembered:
            _remembered.move_to_end(key)
            return _remembered[key].clone()
    found = _look(module, images, of or module, augment, seed, epoch, what)
    if key and found.nbytes <= REMEMBERED:
        with _lock:
            _remembered[key] = found.clone()
            while sum(tensor.nbytes for tensor in _remembered.values()) > REMEMBERED:
                _remembered.popitem(last=False)
    return found


def finite(features: Tensor) -> Tensor:
    """The features as they are.

    Raises:
        InputError: one is no finite number.
    """
    if not features.isfinite().all():
        raise InputError("The network's features of these images are no finite numbers; check its weights.")
    return features


def forget() -> None:
    """Let go of all that is remembered."""
    with _lock:
        _remembered.clear()


def asked(
    teacher: nn.Module,
    images: Tensor,
    of: Callable[[Tensor], Tensor] | None = None,
    mode: Callable[[nn.Module], AbstractContextManager[None]] | None = None,
) -> Tensor:
    """A frozen teacher's answers to a batch, without a graph, in the arithmetic of the run that is going on.

    The teacher is in evaluation mode while it is asked, or in another ``mode``. The answers may stand in a loss.
    """
    with (mode or evaluating)(teacher), current().ready(teacher), torch.inference_mode():
        found = (of or teacher)(images).float()
    return found.clone()  # a tensor made in inference mode may not be saved for backward


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode; after that each part is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _look(
    module: nn.Module,
    images: Images,
    of: Callable[[Tensor], Tensor],
    augment: Augment,
    seed: int,
    epoch: int,
    what: str,
) -> Tensor:
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    pixels = images.preparation.size**2
    most = BATCH if device.type != "cpu" else max(1, min(BATCH, PIXELS // pixels))
    if device.type == "cpu" and len(images) * pixels >= LONG:
        keep_memory()
    order = torch.arange(len(images)).split(most) if len(images) else ()
    # whole batches are dealt out, so that one process and several get the same bits
    first, last = (len(order) * part // world().size for part in (world().rank, world().rank + 1))
    mine = order[first:last]
    found: list[Tensor] = []
    done = 0
    with evaluating(module), torch.inference_mode():
        for index, raw in zip(mine, images.ahead(mine, device), strict=True):
            seen = images.seen(raw, index, augment, seed, epoch)
            seen = seen.contiguous(memory_format=torch.channels_last)  # depthwise convolutions run half as fast again
            found.append(of(seen).float().cpu())
            done += len(index)
            report(what, done * world().size, len(images))
    everything = [part for part in gathered(torch.cat(found) if found else torch.zeros(0)) if part.numel()]
    return torch.cat(everything) if everything else torch.zeros(0)


def _key(
    module: nn.Module, images: Images, of: Callable[[Tensor], Tensor] | None, augment: Augment, seed: int, epoch: int
) -> str:
    """Empty where it cannot be told by name what is asked."""
    asks = "" if of is None or of is module else getattr(of, "__qualname__", "<>")
    if asks and getattr(of, "__self__", None) is not module:
        return ""
    views = f"{getattr(augment, '__module__', '')}.{getattr(augment, '__qualname__', '<>')}"
    if isinstance(module, Classifier) and asks == "Classifier.features":
        module = module.body  # features are the same under any head
    if "<" in asks + views or any("<" in type(part).__qualname__ or _hooked(part) for part in module.modules()):
        return ""
    try:
        parts = [(name, str(type(part)), id(type(part)), _settings(part)) for name, part in module.named_modules()]
    except Exception:  # whatever cannot be pickled, such as a function without a name, is not known by anything
        return ""
    return digest(parts, module, images.fingerprint, asks, views, seed, epoch)


_OWN = frozenset(vars(nn.Module()))
"""What PyTorch itself keeps in every module: parameters, buffers, parts, hooks and the mode."""


def _settings(part: nn.Module) -> bytes:
    """What a part computes with beside its tensors, such as an activation that it was given."""
    return pickle.dumps({name: value for name, value in vars(part).items() if name not in _OWN})


def _hooked(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)
