"""Where a classifier looks: Grad-CAM maps of a batch, with their graph or without."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from classgraft.errors import InputError, nearest
from classgraft.losses.attention import grad_cam
from classgraft.models.classifier import Classifier
from classgraft.models.stages import Tapped, stages
from classgraft.training.answers import evaluating
from classgraft.training.loop import train_mode


def looked_at(model: Classifier, layer: str, images: Tensor) -> str:
    """The name of the part of the body whose map is taken: ``layer``, or that of the last map of more than a pixel (empty).

    Args:
        model: left as it was.
        layer: see above.
        images: network input (B, C, H, W), looked at once.

    Raises:
        InputError: there is no such part, it gives no map, or there is no map at all.
    """
    known = [name for name, _ in model.body.named_modules() if name]
    if layer and layer not in known:
        raise InputError(f"The model has no layer '{layer}'.{nearest(layer, known).partition(' Known')[0]}")
    with evaluating(model):
        if not layer:
            return stages(model.body, images)[-1]
        with torch.no_grad():
            shape = tuple(Tapped(model, layer)(images)[1].shape)
    if len(shape) != 4:
        raise InputError(
            f"The layer '{layer}' gives {shape}, no map (B, C, H, W); name another, or leave the choice open."
        )
    return layer


def drawing(model: Classifier, image: Tensor) -> bool:
    """Whether the network draws random numbers while it learns, by which module or function it may be.

    Asked of a copy on the CPU, with one image (1, C, H, W): there all draws move the state of one generator.
    """
    learning = copy.deepcopy(model).cpu().requires_grad_(True)
    train_mode(learning, statistics=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        learning(image.cpu())
        return not torch.equal(torch.get_rng_state(), before)


def attended(tapped: nn.Module, images: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the maps (B, H * W) of each image's class ``classes`` (B,), with a graph of second order.

    Each image's map comes from its own score alone where no layer mixes the batch: batch norm is to be in evaluation mode.

    Args:
        tapped: a ``Tapped`` with one layer.
        images: network input (B, C, H, W).
        classes: None: the class that each image's logits favour.
    """
    logits, activations = tapped(images)
    chosen = logits.argmax(1) if classes is None else classes
    score = logits.gather(1, chosen[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, activations, create_graph=True)
    return logits, grad_cam(activations, gradients)


def attended_before(tapped: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A frozen network's logits, favoured classes (B,) and their maps (B, H * W), without a graph, in evaluation mode."""
    # of a network whose weights do not learn, activations have a gradient only where the images have one
    with torch.enable_grad(), evaluating(tapped):
        logits, maps = attended(tapped, images.detach().requires_grad_(True))
    return logits.detach(), logits.detach().argmax(1), maps.detach()
