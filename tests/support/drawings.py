"""Digits drawn large, as people send them: on paper or on nothing, in colours, badly lit."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[Any]


def png(array: Array) -> bytes:
    """Return pixels (h, w) or (h, w, 2 to 4) as a PNG."""
    return saved(Image.fromarray(np.asarray(array, np.uint8)), "PNG")


def jpeg(array: Array, quality: int = 90) -> bytes:
    return saved(Image.fromarray(np.asarray(array, np.uint8)), "JPEG", quality=quality)


def saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def header_only(width: int, height: int) -> bytes:
    """Return a PNG that says it is so large, and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    head = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 9) + b"IDAT"


def three_lines(random: np.random.Generator) -> Array:
    """Return a drawing of three thick lines: ink, 0 to 1 (160, 160)."""
    ends = random.uniform(25, 135, (4, 2))
    down, across = np.mgrid[:160, :160]
    ink = np.zeros((160, 160))
    for start, end in itertools.pairwise(ends):
        along = end - start
        share = ((down - start[0]) * along[0] + (across - start[1]) * along[1]) / (along @ along)
        share = np.clip(share, 0, 1)
        distance = np.hypot(
            down - start[0] - share * along[0], across - start[1] - share * along[1]
        )
        ink = np.maximum(ink, np.clip(8 - distance, 0, 1))
    return ink


def enlarged(image: Array, random: np.random.Generator, thickness: int = 0) -> Array:
    """Return a digit (28, 28) with smooth edges somewhere on a larger sheet: ink 0 to 1 (h, w).

    `thickness`: pixels by which its strokes are made thicker, or thinner if negative, where the
    digit is 20 pixels high.
    """
    side = int(random.integers(180, 420))
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    if thickness:
        filters = ImageFilter.MaxFilter if thickness > 0 else ImageFilter.MinFilter
        large = large.filter(filters(2 * round(abs(thickness) * side / 56) + 1))
    blurred = np.asarray(large.filter(ImageFilter.GaussianBlur(side / 90)), np.float64) / 255
    ink = np.clip((blurred - 0.5) * 6 + 0.5, 0, 1) if thickness >= 0 else np.clip(blurred, 0, 1)
    height, width = random.integers(side, 600, 2)
    sheet = np.zeros((height, width))
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    sheet[top : top + side, left : left + side] = ink
    return sheet


def on(paper: Any, ink: Any, sheet: Array) -> Array:
    """Return a sheet in two colours (h, w, 3)."""
    share = sheet[..., None]
    return np.asarray(paper) * (1 - share) + np.asarray(ink) * share


def two_colours(random: np.random.Generator) -> Array:
    """Return paper and ink that differ by 110 grey levels or more in one colour or another."""
    while True:
        colours = random.uniform(0, 255, (2, 3))
        if np.linalg.norm(colours[0] - colours[1]) >= 110:
            return colours


def badly_lit(image: Array, random: np.random.Generator) -> Array:
    """Return a photograph of a sheet: a shadow from one side, and noise."""
    height, width = image.shape[:2]
    angle, strength = random.uniform(0, 2 * np.pi), random.uniform(0.2, 0.5)
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - strength * (0.5 + 0.5 * (np.cos(angle) * across + np.sin(angle) * down) / 1.42)
    noise = random.normal(0, random.uniform(3, 12), image.shape)
    return np.clip(image * light[..., None] + noise, 0, 255)


def _black_on_white(image: Array, random: np.random.Generator) -> bytes:
    return png(on([255] * 3, [0] * 3, enlarged(image, random)))


def _white_on_black(image: Array, random: np.random.Generator) -> bytes:
    return png(on([0] * 3, [255] * 3, enlarged(image, random)))


def _thin(image: Array, random: np.random.Generator) -> bytes:
    return png(on([255] * 3, [0] * 3, enlarged(image, random, thickness=-1)))


def _thick(image: Array, random: np.random.Generator) -> bytes:
    return png(on([255] * 3, [0] * 3, enlarged(image, random, thickness=1)))


def _bad_jpeg(image: Array, random: np.random.Generator) -> bytes:
    return jpeg(on([255] * 3, [30] * 3, enlarged(image, random)), quality=15)


def _good_jpeg(image: Array, random: np.random.Generator) -> bytes:
    return jpeg(on([250] * 3, [20, 20, 120], enlarged(image, random)), quality=90)


def _coloured(image: Array, random: np.random.Generator) -> bytes:
    paper, ink = two_colours(random)
    return png(on(paper, ink, enlarged(image, random)))


def _coloured_jpeg(image: Array, random: np.random.Generator) -> bytes:
    paper, ink = two_colours(random)
    return jpeg(on(paper, ink, enlarged(image, random)), quality=60)


def _pencil(image: Array, random: np.random.Generator) -> bytes:
    sheet = on([235, 232, 225], [165, 165, 168], enlarged(image, random))
    return jpeg(np.clip(sheet + random.normal(0, 4, sheet.shape), 0, 255), quality=75)


def _photograph(image: Array, random: np.random.Generator) -> bytes:
    sheet = on([240, 238, 230], [50, 50, 90], enlarged(image, random))
    return jpeg(badly_lit(sheet, random), quality=int(random.integers(50, 90)))


def _dark_on_nothing(image: Array, random: np.random.Generator) -> bytes:
    sheet = enlarged(image, random)
    return png(np.dstack([np.full((*sheet.shape, 3), 20), sheet * 255]))


def _light_on_nothing(image: Array, random: np.random.Generator) -> bytes:
    sheet = enlarged(image, random)
    return png(np.dstack([np.full((*sheet.shape, 3), 240), sheet * 255]))


def _small(image: Array, random: np.random.Generator) -> bytes:
    return png(255 - image)


def cut(image: Array, longer: int) -> Array:
    """Return a digit (28, 28) cut along its ink, `longer` pixels high or wide: ink 0 to 1."""
    rows, columns = (np.flatnonzero((image > 60).any(axis=axis)) for axis in (1, 0))
    ink = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    width, height = (max(1, round(side * longer / max(ink.size))) for side in ink.size)
    return np.asarray(ink.resize((width, height), Image.Resampling.BICUBIC), np.float64) / 255


def _cut(image: Array, random: np.random.Generator) -> bytes:
    return png(on([255] * 3, [0] * 3, cut(image, int(random.integers(20, 60)))))


def _specks(image: Array, random: np.random.Generator) -> bytes:
    sheet = on([255] * 3, [0] * 3, enlarged(image, random))
    for _ in range(12):
        row, column = (random.integers(0, side - 3) for side in sheet.shape[:2])
        sheet[row : row + 3, column : column + 3] = 40
    return png(sheet)


KINDS: dict[str, Callable[[Array, np.random.Generator], bytes]] = {
    "black on white": _black_on_white,
    "white on black": _white_on_black,
    "thin": _thin,
    "thick": _thick,
    "JPEG of quality 15": _bad_jpeg,
    "JPEG of quality 90": _good_jpeg,
    "colours": _coloured,
    "colours, JPEG": _coloured_jpeg,
    "pencil": _pencil,
    "noise and shadow": _photograph,
    "dark on nothing": _dark_on_nothing,
    "light on nothing": _light_on_nothing,
    "28 x 28, black on white": _small,
    "specks": _specks,
    "cut along the ink": _cut,
}
