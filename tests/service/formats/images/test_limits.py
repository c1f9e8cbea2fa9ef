"""What may stand in a file of an image, counted before a decoder reads it."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidInput
from service.formats.images.limits import JPEG, MOST_SCANS, check, without_extras
from tests.support.drawings import jpeg, on, png, saved, three_lines
from tests.support.images import read

Array = NDArray[Any]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


PROFILE = b"x\0\0" + zlib.compress(bytes(100_000))
TOO_MANY = {
    "profiles": (png, 33, chunk(b"iCCP", PROFILE) * 200, "a PNG of too many chunks"),
    "texts": (png, 33, chunk(b"tEXt", b"a\0b") * 200, "a PNG of too many chunks"),
    "pixels of nothing": (png, 33, chunk(b"IDAT") * 2000, "a PNG of too many chunks"),
    "comments": (jpeg, 2, segment(0xFE, b"") * 2000, "a JPEG of too many segments"),
    "metadata": (jpeg, 2, segment(0xE1, b"Exif\0\0") * 2000, "a JPEG of too many segments"),
    "filling": (jpeg, 2, b"\xff" * 2000, "a JPEG of too many segments"),
}


@pytest.mark.parametrize(("write", "place", "parts", "got"), TOO_MANY.values(), ids=TOO_MANY)
def test_parts_beside_the_pixels_are_few(
    write: Callable[[Array], bytes], place: int, parts: bytes, got: str
) -> None:
    good = write(np.zeros((50, 50)))
    few = good[:place] + parts[: parts.index(parts[:4], 4)] + good[place:]
    check(few, "body")
    assert read(few).shape == (28, 28)
    with pytest.raises(InvalidInput, match=f"^body: expected a PNG or JPEG image, got {got}$"):
        check(good[:place] + parts + good[place:], "body")


LARGE = zlib.compress(bytes(2_000_000))  # Pillow refuses more than a megabyte
EXTRAS = {
    "a profile": chunk(b"iCCP", b"x\0\0" + LARGE),
    "a text": chunk(b"zTXt", b"x\0\0" + LARGE),
    "a text of any language": chunk(b"iTXt", b"x\0\1\0\0\0" + LARGE),
    "a text with the name of a fact": chunk(b"tEXt", b"interlace\0no"),
    "one that is too short": chunk(b"gAMA"),
    "one with another check sum": chunk(b"tIME", bytes(7))[:-4] + bytes(4),
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_what_says_nothing_of_the_pixels_reaches_no_decoder(extra: bytes) -> None:
    good = png(255 * three_lines(np.random.default_rng(0)))
    assert without_extras(good) is good
    for place in (33, len(good) - 12):  # before the pixels, and behind them
        data = good[:place] + extra + good[place:]
        assert without_extras(data) == good
        assert np.array_equal(read(data), read(good))
        cut = data[: place + len(extra) - 1]
        assert without_extras(cut) == cut


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = jpeg(np.zeros((40, 40)))
    with pytest.raises(InvalidInput, match="got a JPEG of more than 32 scans"):
        check(data[:-2] + b"\xff\xda" * 40, "body")
    progressive = saved(Image.new("RGB", (40, 40)), "JPEG", progressive=True)
    assert progressive.count(b"\xff\xda") > 5
    check(progressive, "body")
    read(progressive)


def test_a_phones_film_behind_the_picture_is_none_of_it() -> None:
    film = np.random.default_rng(0).bytes(8_000_000)
    assert film.count(b"\xff\xda") > MOST_SCANS
    good = jpeg(on([255] * 3, [0] * 3, three_lines(np.random.default_rng(0))))
    assert np.array_equal(read(good + film), read(good))


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "nothing"),
        (b"hello", "something else"),
        (saved(Image.new("L", (9, 9)), "GIF"), "a GIF"),
        (saved(Image.new("L", (9, 9)), "BMP"), "a BMP"),
        (saved(Image.new("L", (9, 9)), "TIFF"), "a TIFF"),
        (saved(Image.new("L", (9, 9)), "WEBP"), "a WebP"),
        (b"\0\0\0\x18ftypheic\0\0", "a HEIC, an AVIF or a film"),
        (b"%PDF-1.7", "a PDF"),
        (b"<svg/>", "XML or HTML"),
        (b'{"b64": ""}', "JSON"),
    ],
)
def test_what_is_no_picture_is_said(data: bytes, got: str) -> None:
    with pytest.raises(InvalidInput, match=f"^body: expected a PNG or JPEG image, got {got}$"):
        check(data, "body")


@pytest.mark.parametrize("good", [png(np.zeros((50, 50))), jpeg(np.zeros((50, 50)))])
def test_what_is_cut_off_is_left_to_the_decoder(good: bytes) -> None:
    for length in range(3 if good.startswith(JPEG) else 8, len(good), 7):
        check(good[:length], "body")
