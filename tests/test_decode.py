from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from classgraft.data import decode
from classgraft.data.augment import centre
from classgraft.data.decode import BadImage, open_rgb, square
from classgraft.errors import InputError
from classgraft.models.preparation import Canvas

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
COMPRESSED = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "JPEG2000"]


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def opened(data: bytes) -> np.ndarray[Any, Any]:
    image = open_rgb(data, "rose.png")
    assert image.mode == "RGB"
    return np.asarray(image)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth with some noise, so that resizing has something to get wrong."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")


def tiff_of_channels(count: int) -> bytes:
    """A TIFF of 4 x 1 pixels with more channels than Pillow decodes."""
    tags = [
        (256, 4, 4),
        (257, 4, 1),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 2),
        (273, 4, 200),
        (277, 3, count),
        (279, 4, 4 * count),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + bytes(4 * count)


def test_bytes_paths_and_images_open_alike(tmp_path: Path) -> None:
    image = photo(9, 6)
    file = tmp_path / "rose"
    file.write_bytes(encoded(image))
    for data in (file.read_bytes(), file, image):
        assert np.array_equal(np.asarray(open_rgb(data, "rose")), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(orientation: int, form: str) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8], upright[8:, 24:] = RED, BLUE
    # What a camera stores, so that the tag's transform brings the scene back upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    once = open_rgb(encoded(Image.fromarray(stored.copy()), form, exif=exif, **options), "rose")
    assert np.abs(np.asarray(once).astype(int) - upright).max() <= 3
    assert np.array_equal(np.asarray(open_rgb(once, "rose")), np.asarray(once))


@pytest.mark.parametrize(
    "exif",
    [
        b"this is no TIFF header",
        b"MM\0*",
        b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 2, 3, int.from_bytes(b"up", "little"), 0),  # in words
    ],
)
def test_a_broken_exif_block_does_not_spoil_the_image(exif: bytes) -> None:
    image = photo(20, 10)
    assert np.array_equal(opened(encoded(image, "PNG", exif=exif)), np.asarray(image))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_one_channel_becomes_three(mode: str) -> None:
    grey = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 4, axis=1)).convert(mode)
    assert opened(encoded(grey)).tolist() == [[[0] * 3] * 4, [[255] * 3] * 4]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    alpha = np.array([[0, 127, 255]], np.uint8)
    channels = [np.zeros_like(alpha)] * (3 if mode == "RGBA" else 1)
    image = Image.merge(mode, [Image.fromarray(channel) for channel in (*channels, alpha)])
    assert opened(encoded(image))[0, :, 0].tolist() == [255, 128, 0]


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, *RED])
    image.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        assert opened(encoded(image, transparency=transparency))[0].tolist() == [list(WHITE), list(RED)]
    assert opened(encoded(image, "GIF", transparency=0))[0].tolist() == [list(WHITE), list(RED)]


def test_a_transparent_colour_is_white() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((0, 0), BLUE)
    assert opened(encoded(image, transparency=BLUE))[0].tolist() == [list(WHITE), list(RED)]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(form: str) -> None:
    values = np.array([[0, 257, 128 * 257, 40000, 65000, 65535]], np.uint16)
    data = encoded(Image.fromarray(values), form)
    assert opened(data)[0, :, 0].tolist() == [0, 1, 128, 156, 253, 255]


def test_16_bit_big_endian() -> None:
    values = np.array([[0, 257, 40000, 65535]], ">u2")
    image = Image.frombytes("I;16B", (4, 1), values.tobytes())
    assert np.asarray(open_rgb(image, "rose"))[0, :, 0].tolist() == [0, 1, 156, 255]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 0, 1]),
        (np.array([[0, 257, 65000]], np.int32), [0, 1, 253]),
        (np.array([[0, 250_000, 1_000_000]], np.int32), [0, 64, 255]),
        (np.array([[-100, 0, 300]], np.int32), [0, 64, 255]),
        (np.array([[0.0, 0.2, 1.0]], np.float32), [0, 51, 255]),
        (np.array([[0.0, 51.0, 200.0]], np.float32), [0, 51, 200]),
        (np.array([[0.0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.full((1, 3), -5.0, np.float32), [0, 0, 0]),
    ],
)
def test_wide_integers_and_floats(values: np.ndarray[Any, Any], grey: list[int]) -> None:
    assert opened(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == grey


def test_cmyk_as_printed() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):  # Pillow writes the JPEG inverted, as Adobe does
        assert np.abs(opened(encoded(image, form)).astype(int) - RED).max() <= 3


def test_lab() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 4), RED), srgb, lab, outputMode="LAB")
    assert image is not None
    assert np.abs(opened(encoded(image, "TIFF")).astype(int) - RED).max() <= 8


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_many(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (opened(data) == RED).all()


def bad() -> dict[str, bytes]:
    whole = {form: encoded(photo(64, 48), form) for form in COMPRESSED}
    halves = {f"half of a {form}": data[: len(data) // 2] for form, data in whole.items()}
    starts = {f"start of a {form}": data[:30] for form, data in whole.items()}
    scrambled = bytearray(whole["PNG"])
    scrambled[100:200] = bytes(100)
    return {
        **halves,
        **starts,
        "nothing": b"",
        "text": b"this is no picture\n" * 50,
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "zeros": bytes(5000),
        "scrambled PNG": bytes(scrambled),
        "TGA, which has no signature": encoded(photo(8, 8), "TGA"),
        "many channels in a TIFF": tiff_of_channels(13),
        "bomb above Pillow's own limit": png_of_size(60_000, 60_000),
        "bomb": png_of_size(10_001, 10_000),
    }


@pytest.mark.parametrize("case", bad())
def test_bad_images_are_named_in_one_sentence(
    case: str,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that sets up no logging
    with pytest.raises(BadImage) as error:
        open_rgb(bad()[case], "rose/a b.jpg")
    words = str(error.value)
    assert isinstance(error.value, InputError)
    assert words.startswith("image 'rose/a b.jpg' cannot be used: ")
    assert words.endswith("; replace or delete it.")
    assert "\n" not in words
    assert "object at 0x" not in words
    assert not recwarn.list
    if case != "half of a TIFF":  # libtiff may write to the terminal by itself
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "empty"), (b"text", "not an image"), (png_of_size(10**4, 10**5), "00 pix")]
)
def test_the_reason_is_given(data: bytes, says: str) -> None:
    with pytest.raises(BadImage, match=says):
        open_rgb(data, "rose")


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="cannot be read"):
        open_rgb(tmp_path / "absent.png", "absent.png")


def test_the_limit_counts_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 100)
    assert open_rgb(encoded(photo(10, 10)), "rose").size == (10, 10)
    for data in (photo(101, 1), encoded(photo(101, 1))):
        with pytest.raises(BadImage, match="101 x 1 is more than 100 pixels"):
            open_rgb(data, "rose")


def test_warnings_of_pillow_stay_inside_and_others_do_not() -> None:
    def attempt(_: int) -> str:
        with pytest.raises(BadImage):
            open_rgb(png_of_size(10_001, 10_000), "bomb")
        return "refused"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(attempt, range(40))) == ["refused"] * 40
        assert warnings.filters == filters
        warnings.warn("mine", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["mine"]


def test_warnings_return_when_the_last_thread_leaves() -> None:
    before = list(warnings.filters)
    with decode._quiet:
        with decode._quiet:
            pass
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before


def test_pillows_own_state_is_left_alone() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    open_rgb(encoded(photo(8, 8)), "rose")
    with pytest.raises(BadImage):
        open_rgb(png_of_size(10_001, 10_000), "bomb")
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_the_callers_image_is_left_alone() -> None:
    image = Image.open(io.BytesIO(encoded(photo(8, 4), "JPEG", exif=Image.Exif())))
    image.info["note"] = "kept"
    result = open_rgb(image, "rose")
    result.putpixel((0, 0), WHITE)
    assert image.info["note"] == "kept"
    assert image.getpixel((0, 0)) != WHITE


@pytest.mark.parametrize(
    ("size", "side"),
    [
        *[((64, 64), 32), ((75, 50), 32), ((50, 75), 32), ((333, 500), 224), ((101, 67), 31), ((13, 20), 7)],
        *[((20, 13), 32), ((1, 1), 3), ((1, 8), 5), ((800, 100), 24)],
        *[((32, 45), 32), ((61, 32), 32), ((33, 32), 32), ((32, 32), 32)],
    ],
)
def test_square_equals_torchvision(size: tuple[int, int], side: int) -> None:
    image = photo(*size)
    theirs = Compose([Resize(side, InterpolationMode.BICUBIC), CenterCrop(side)])(image)
    ours = square(image, side)
    assert ours.dtype == torch.uint8
    assert ours.is_contiguous()
    assert torch.equal(ours, torch.from_numpy(np.array(theirs)).permute(2, 0, 1))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (640, 480), (251, 333), (333, 251), (400, 400), (500, 333)])
@pytest.mark.parametrize(("side", "crop"), [(45, 40), (256, 224), (235, 224), (342, 299), (341, 299), (248, 224)])
@pytest.mark.parametrize("stretched", [False, True])
def test_the_crop_of_a_square_is_that_of_the_whole_picture(
    size: tuple[int, int], side: int, crop: int, stretched: bool
) -> None:
    image = photo(*size)
    resize = Resize((side, side) if stretched else side, InterpolationMode.BICUBIC)
    theirs = torch.from_numpy(np.array(Compose([resize, CenterCrop(crop)])(image))).permute(2, 0, 1)
    assert torch.equal(centre(square(image, Canvas(side, crop, stretched))[None], crop)[0], theirs)


@pytest.mark.parametrize("size", [(30_000, 2), (2, 30_000), (1, 9), (100_000, 1)])
def test_square_of_a_very_long_image_is_its_centre(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    middle = tuple(slice(n // 2 - 4, n // 2 + 4) if n > 8 else slice(None) for n in pixels.shape[:2])
    pixels[middle] = RED
    asked = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *rest: asked.append(to) or resize(self, to, *rest))
    canvas = square(Image.fromarray(pixels), 64)
    assert (canvas == torch.tensor(RED)[:, None, None]).all()
    assert asked == [(64, 64)]  # never resized whole


def test_real_photos_open_as_pillow_opens_them(data: Path) -> None:
    files = sorted((data / "flowers" / "test").rglob("*.jpg"))[::20]
    assert files
    for file in files:
        assert np.array_equal(np.asarray(open_rgb(file, file.name)), np.asarray(Image.open(file).convert("RGB")))
