"""Encoded images to pixels: what a person sees in a viewer, as 8 bit RGB, on a square canvas."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from classgraft.errors import InputError
from classgraft.models.preparation import Canvas

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "MPO": (".mpo",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
"""Pillow's names of the formats that are read -> their usual extensions. Left out: formats that Pillow hands to another
program (EPS) and those without a signature (TGA), which would turn any bytes into noise."""

PIXEL_LIMIT = 100_000_000
"""Pixels, width times height, above which an image is refused: a small file can unpack to any size."""

_LONGEST = 8
"""Long side over short side above which the centre square is cut out first; resized whole it would fill the memory."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""

# Pillow logs some refusals that it also raises; with no handler at all Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class BadImage(InputError):
    """An image that cannot be used: broken, cut short, empty, too large, or no image."""


def open_rgb(data: bytes | Path | Image.Image, name: str) -> Image.Image:
    """The image upright, in 8 bit RGB, over white where it is transparent; of an animation the first frame.

    16 bit values are divided by 257. Values beyond 16 bit are stretched: zero, or the least if negative, becomes black
    and the greatest white. Floats count as 0..1, 0..255 or 0..65535, whichever is the first to hold them all.
    `name` is what the error calls the image. The caller's image object keeps its pixels.

    Raises:
        BadImage: with the reason.
    """
    try:
        with _quiet:
            if isinstance(data, Image.Image):
                return _rgb(data)
            content = data.read_bytes() if isinstance(data, Path) else data
            if not content:
                raise _Unusable("it is empty")
            with Image.open(BytesIO(content), formats=_formats()) as image:
                return _rgb(image)
    except Exception as error:  # decoders raise nearly anything on broken files
        raise BadImage(f"image {name!r} cannot be used: {_reason(error)}; replace or delete it.") from error


def check_size(data: bytes, name: str, most: int) -> None:
    """Refuse an image of more than ``most`` pixels by its header alone; what is no image passes, for ``open_rgb`` to say.

    Raises:
        BadImage: it is larger.
    """
    try:
        with _quiet, Image.open(BytesIO(data), formats=_formats()) as image:
            width, height = image.size
    except Exception:
        return
    if width * height > most:
        raise BadImage(
            f"image {name!r} cannot be used: {width} x {height} is more than {most:,} pixels; make it smaller."
        )


def square(image: Image.Image, canvas: Canvas | int) -> torch.Tensor:
    """The centre of an RGB image, uint8 (3, side, side): the short side is resized to the canvas's, the rest cropped.

    Bicubic with antialias; with the crop that follows equal to torchvision's Resize and CenterCrop on PIL images, but for
    images more than eight times as long as wide, of which only the centre square is resized.
    """
    canvas = Canvas(canvas) if isinstance(canvas, int) else canvas
    side, crop = canvas.side, canvas.crop or canvas.side
    short, long = sorted(image.size)
    if long > _LONGEST * short and not canvas.stretched:
        image, long = _centre(image, short, short), short
    rest = side if canvas.stretched else int(side * long / short)
    size = (side, rest) if image.width <= image.height else (rest, side)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(_centre(image, side, crop))).permute(2, 0, 1).contiguous()


def _centre(image: Image.Image, side: int, crop: int) -> Image.Image:
    """A square, in whose middle lies the square of ``crop`` that is cut out of the middle of the whole."""
    inside = round((side - crop) / 2)
    left, top = (
        min(max(round((length - crop) / 2) - inside, 0), length - side) for length in (image.width, image.height)
    )
    return image.crop((left, top, left + side, top + side))


def _reason(error: Exception) -> str:
    match error:
        case _Unusable():
            return str(error)
        case UnidentifiedImageError():
            return "it is not an image in a known format, or its start is damaged"
        case Image.DecompressionBombError():
            return f"it has more than {PIXEL_LIMIT:,} pixels"
        case OSError(strerror=str(words)):
            return f"it cannot be read ({words})"
    return f"it is damaged or cut short ({' '.join(str(error).split()) or type(error).__name__})"


def _rgb(image: Image.Image) -> Image.Image:
    if not image.width * image.height:
        raise _Unusable("it has no pixels")
    if image.width * image.height > PIXEL_LIMIT:
        raise _Unusable(f"{image.width} x {image.height} is more than {PIXEL_LIMIT:,} pixels")
    image.load()
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        rgb = _eight_bit(image).convert("RGB")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    rgb.info = {}  # so that whoever opens the result again does not turn it again
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # viewers too show an image whose EXIF block is broken
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """One channel of 16 or 32 bit integers or floats, as 8 bit grey; what is not finite is black."""
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)
    least, most = float(values.min()), float(values.max())
    low, high = 0.0, 65535.0
    if least < low or most > high:
        low, high = min(least, 0.0), max(most, 0.0)
    elif image.mode == "F" and most <= 255:
        high = 1.0 if most <= 1 else 255.0
    return Image.fromarray(np.rint((values - low) * (255 / (high - low))).astype(np.uint8))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF came to Pillow only with 11.3


class _Unusable(Exception):
    """The reason in words, on its way to where the image's name is known."""


class _Quiet:
    """Hides Pillow's warnings while any thread is inside; threads with a `catch_warnings` each undo one another's."""

    def __init__(self) -> None:
        self._lock, self._inside, self._filters = Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_quiet = _Quiet()
