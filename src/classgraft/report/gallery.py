"""One self-contained HTML page of pictures side by side: images, what is true of them, and what networks say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from classgraft.report.page import ENVIRONMENT, without_controls

__all__ = ["Gallery", "coloured", "render"]


@dataclass(frozen=True, eq=False)
class Gallery:
    """A table of numbers, plots, a key of colours, and rows of pictures."""

    title: str
    what: str
    """What was done, a sentence or two."""
    header: tuple[str, ...]
    numbers: tuple[tuple[str, ...], ...]
    """Rows of the table, as wide as ``header``."""
    key: tuple[tuple[str, str], ...]
    """A name and a colour (#rrggbb) each."""
    columns: tuple[str, ...]
    pictures: tuple[tuple[Tensor | Image.Image, ...], ...]
    """Rows of pictures, one for each column: uint8 (3, H, W), or PIL."""
    side: int = 240
    """Longest side of a picture on the page, in pixels."""
    drawings: tuple[tuple[str, str], ...] = ()
    """What is said below a plot, and the plot (``report.plots``)."""


def coloured(image: Tensor, mask: Tensor, colours: Tensor, strength: float = 0.6) -> Tensor:
    """The image (3, H, W) under the colours (K, 3) of the mask's classes (H, W), all uint8.

    Pixels of the mask beyond the last class, such as void, keep the image's colour.
    """
    known = mask.long() < len(colours)
    paint = colours[torch.where(known, mask.long(), 0)].permute(2, 0, 1).float()
    mixed = (1 - strength) * image.float() + strength * paint
    return torch.where(known, mixed, image.float()).round().to(torch.uint8)


def render(gallery: Gallery) -> str:
    """The page as text, to be written as UTF-8."""
    return without_controls(ENVIRONMENT.get_template("gallery.html.jinja").render(page=gallery))
