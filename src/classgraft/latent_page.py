"""The page of what GLICO learns of a few images: pictures between two of each class, and its points by class."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from classgraft import catalogue
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.report import gallery, plots
from classgraft.trainers.glico import GLICO
from classgraft.training.latent import Latent

WAYS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""Shares of the great circle at which pictures are shown."""
ROWS = 20
"""Classes, at most, of which there are pictures between two images."""


def of_latent(bundle: Bundle, images: Images, settings: Mapping[str, Any] | None = None, *, command: str = "") -> str:
    """The page of what ``glico`` learns of a few images: pictures between two of each class, and its points by class.

    The same images, bundle, settings and seed give ``train`` by ``glico`` the same generator. GLO, which does without the
    class loss, is learnt beside it and drawn likewise.

    Args:
        bundle: whose body compares pictures, where it is trained.
        images: labelled ones of the bundle's classes, as its model takes them; uint8.
        settings: fields of ``glico``.
        command: shown on the page.

    Raises:
        InputError: there are not two images.
    """
    method, known = catalogue.trainer("glico", settings), images.of(bundle.classes)
    assert isinstance(method, GLICO)
    if len(known) < 2:
        raise InputError(f"There are {len(known)} images to show pictures between; give two at least.")
    learnt = {
        name: each.learnt(bundle.model, known, len(known.classes))
        for name, each in (("glico", method), ("glo (no class loss)", dataclasses.replace(method, strength=0.0)))
    }
    drawings = []
    for name, latent in learnt.items():
        place, labels = latent.plane().tolist(), known.labels.tolist()
        groups = [
            (word, [(x, y) for (x, y), label in zip(place, labels, strict=True) if label == k])
            for k, word in enumerate(known.classes)
        ]
        shown = plots.scatter(
            [group for group in groups if group[1]], f"Points of {name}", ("first axis", "second axis")
        )
        drawings.append(
            (f"The point of each image, by {name}, on the two axes along which the points differ most.", shown)
        )
    what = (
        f"From {len(known)} images of {len(known.classes)} classes, {method.drawing} steps. In training a picture lies up to"
        f" {method.reach:g} of the way from an image's point to that of another image of its class."
    )
    header = ("", "images", "mean difference of pixels", "cosine within a class", "cosine between classes")
    numbers = tuple(_numbers(name, latent, known) for name, latent in learnt.items())
    return gallery.render(gallery.Gallery(
        "What lies between a few images", f"{what} {command}".strip(), header, numbers, (),
        ("an image", *(f"{way:g} of the way" for way in WAYS), "another of its class"),
        _between(learnt["glico"], known), 96, tuple(drawings),
    ))  # fmt: skip


def _numbers(name: str, latent: Latent, images: Images) -> tuple[str, ...]:
    device = latent.points.device
    apart = [
        (latent.along(some, some, (0.0,))[:, 0] - images.raw(some, device)).abs().mean((1, 2, 3))
        for some in torch.arange(len(images), device=device).split(64)
    ]
    cosines = ("-" if math.isnan(value) else f"{value:.2f}" for value in latent.likeness())
    return name, f"{len(images)}", f"{float(torch.cat(apart).mean()):.3f}", *cosines


def _between(latent: Latent, images: Images) -> tuple[tuple[Tensor, ...], ...]:
    """For each class a row of its first image, pictures on the way to another, and that one."""
    first = torch.stack([torch.nonzero(images.labels == k)[0, 0] for k in images.labels.unique()[:ROWS]])
    first = first.to(latent.points.device)
    second = latent.partner(first, torch.zeros(len(first), device=first.device))
    drawn = (255 * latent.along(first, second, WAYS)).round().clamp(0, 255).to(torch.uint8).cpu()
    ends = [images.pixels[index.cpu()] for index in (first, second)]
    return tuple((start, *row, end) for start, row, end in zip(ends[0], drawn, ends[1], strict=True))
