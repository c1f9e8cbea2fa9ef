"""Files of images -> the pixels that a model takes."""

import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile

from service import card
from service.errors import DeadlineExceeded, InvalidInput, TooLarge
from service.formats.images.decode import Reader, as_png, ignore_warnings
from service.formats.message import Slow
from tests.support.bodies import limits
from tests.support.drawings import header_only, jpeg, on, png, saved, three_lines
from tests.support.images import DIGIT, read

Array = NDArray[Any]
COLOURED = card.Image(height=2, width=3, channels=3, preparation="")
PNG, JPEG = png(np.zeros((50, 50))), jpeg(np.zeros((50, 50)))
ALIKE = 6  # grey levels by which the same drawing may differ: a box that is a pixel larger


@pytest.mark.parametrize("tone", [0, 20, 240, 255])
def test_ink_on_nothing_may_be_dark_or_light(tone: int) -> None:
    ink = three_lines(np.random.default_rng(5))
    expected = read(png(255 * ink))
    hidden = np.full((160, 160, 3), 255 - tone)  # the colour of what is transparent says nothing
    hidden[ink > 0] = tone
    for layers in (
        np.dstack([hidden, 255 * ink]),
        np.dstack([np.full((160, 160), tone), 255 * ink]),  # grey with alpha
    ):
        assert np.abs(read(png(layers)).astype(int) - expected).mean() < ALIKE


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (30, 220)])
def test_a_sheet_with_transparent_corners_is_paper_and_not_ink(paper: int, ink: int) -> None:
    drawn = three_lines(np.random.default_rng(6))
    sheet = on([paper] * 3, [ink] * 3, drawn)
    alpha = np.full((160, 160), 255)
    alpha[:30, :30] = alpha[-30:, -30:] = 0
    seen = read(png(np.dstack([sheet, alpha])))
    assert np.abs(seen.astype(int) - read(png(sheet))).mean() < ALIKE


def test_a_transparent_palette_is_seen() -> None:
    ink = three_lines(np.random.default_rng(5))
    picture = Image.fromarray((ink > 0.5).astype(np.uint8), "L").convert("P")
    picture.putpalette([0, 0, 0, 10, 10, 90])
    data = saved(picture, "PNG", transparency=0)
    assert np.abs(read(data).astype(int) - read(png(255 * (ink > 0.5)))).mean() < ALIKE


def test_a_sheet_of_nothing_is_an_empty_image() -> None:
    assert not read(png(np.zeros((100, 100, 4)))).any()


@pytest.mark.parametrize("height", [1, 2, 3, 27, 28, 29, 513, 1600])
@pytest.mark.parametrize("width", [1, 2, 29, 600])
def test_any_size_is_read(height: int, width: int) -> None:
    sheet = np.full((height, width), 255)
    sheet[height // 3 : 2 * height // 3 + 1, width // 2 : width // 2 + 1 + width // 9] = 0
    assert read(png(sheet)).shape == (28, 28)


def test_a_picture_as_the_model_takes_it_is_left_as_it_is() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28))
    pixels[0] = pixels[-1] = pixels[:, 0] = pixels[:, -1] = 0
    assert np.array_equal(read(png(pixels)), pixels)
    assert np.array_equal(read(png(np.dstack([pixels] * 3))), pixels)
    opaque = png(np.dstack([*[pixels] * 3, np.full((28, 28), 255)]))  # as a canvas gives it
    assert np.array_equal(read(opaque), pixels)
    assert np.array_equal(read(opaque, prepare=False), pixels)
    assert not np.array_equal(read(png(255 - pixels)), 255 - pixels)
    assert np.array_equal(read(png(255 - pixels), prepare=False), 255 - pixels)


def test_unprepared_pictures_have_the_models_size() -> None:
    with pytest.raises(InvalidInput, match="28 x 28 pixels, as prepare=false says, got 28 x 27"):
        read(png(np.zeros((27, 28))), prepare=False)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    pixels = np.zeros((28, 28), np.uint16)
    pixels[5:20, 8:20] = np.arange(180).reshape(15, 12) * 300
    data = saved(Image.fromarray(pixels), "PNG")
    assert np.array_equal(read(data), pixels >> 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_the_camera_says(orientation: int) -> None:
    """Held against what each value means (EXIF 2.3): where row 0 and column 0 are."""
    upright = 255 * three_lines(np.random.default_rng(2))[:, :120]
    back: dict[int, Callable[[Array], Array]] = {
        1: lambda a: a,
        2: np.fliplr,  # top, right
        3: lambda a: np.rot90(a, 2),  # bottom, right
        4: np.flipud,  # bottom, left
        5: np.transpose,  # left, top
        6: lambda a: np.rot90(a, 1),  # right, top
        7: lambda a: np.rot90(a, 2).T,  # right, bottom
        8: lambda a: np.rot90(a, -1),  # left, bottom
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(back[orientation](upright).astype(np.uint8))
    for kind in ("PNG", "JPEG"):
        seen = read(saved(stored, kind, exif=exif)).astype(int)
        assert np.abs(seen - read(png(upright))).mean() < 3, kind


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's
def test_an_orientation_that_says_nothing_changes_nothing() -> None:
    picture = Image.fromarray((255 * three_lines(np.random.default_rng(2))).astype(np.uint8))
    plain = saved(picture, "JPEG")
    broken = plain[:2] + b"\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\xff" + plain[2:]
    assert np.array_equal(read(broken), read(plain))


def test_three_channels_are_scaled_and_nothing_else() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3))
    assert np.array_equal(read(png(pixels), COLOURED), pixels)
    assert np.array_equal(read(png(pixels), COLOURED, prepare=False), pixels)
    large = np.kron(pixels, np.ones((200, 200, 1)))
    assert np.abs(read(png(large), COLOURED).astype(int) - pixels).mean() < 20
    nothing = np.zeros((2, 3, 4))
    assert read(png(nothing), COLOURED).tolist() == np.full((2, 3, 3), 255).tolist()


def test_an_animation_is_its_first_frame() -> None:
    first, second = (255 * three_lines(np.random.default_rng(seed)) for seed in (1, 2))
    frames = [Image.fromarray(each.astype(np.uint8)) for each in (first, second)]
    moving = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert np.array_equal(read(moving), read(png(first)))


def test_mnist_as_png_is_its_own_pixels(held_out: tuple[Array, Array]) -> None:
    digits, _ = held_out
    assert np.array_equal([read(png(digit)) for digit in digits], digits)


@pytest.mark.parametrize("side", [1001, 10_000, 20_000, 2**31 - 1])
def test_bombs_are_refused_by_their_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)
    with pytest.raises(TooLarge, match="an image of at most 1000000 pixels, got"):
        read(header_only(side, 1000))


def test_a_file_of_too_many_parts_reaches_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(InvalidInput, match="got a JPEG of too many segments"):
        read(JPEG[:2] + b"\xff" * 2000 + JPEG[2:])


def test_all_pictures_of_a_request_have_a_limit() -> None:
    reader = Reader(DIGIT, limits(max_pixels_in_all=25_000))
    data = png(np.zeros((100, 100)))
    for _ in range(2):
        reader.read(data, "file 1")
    with pytest.raises(TooLarge, match="file 3: expected at most 25000 pixels in all images"):
        reader.read(data, "file 3")


@pytest.mark.parametrize(("width", "height"), [(1, 70_000), (70_000, 1)])
def test_a_side_has_a_limit_too(width: int, height: int) -> None:
    with pytest.raises(TooLarge, match="at most 65535 pixels to a side, got"):
        read(header_only(width, height))


def test_what_cameras_write_wrongly_is_told_to_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    odd = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x1a\x01\x05\0\xff\xff\xff\xff" * 3
    metadata = b"\xff\xe1" + struct.pack(">H", len(odd) + 2) + odd
    with warnings.catch_warnings(record=True) as told:
        ignore_warnings()
        read(JPEG[:2] + metadata + JPEG[2:])
    assert (told, capfd.readouterr().err) == ([], "")


def test_what_is_late_is_not_decoded() -> None:
    reader = Reader(DIGIT, limits(deadline=perf_counter() - 1))
    with pytest.raises(DeadlineExceeded):
        reader.read(png(np.zeros((28, 28))), "body")


def test_only_what_is_small_is_read_in_the_event_loop() -> None:
    small = png(np.zeros((28, 28)))
    reader = Reader(DIGIT, limits(in_loop=True))
    reader.read(small, "file 1")
    reader.read(small, "file 2")
    with pytest.raises(Slow):
        reader.read(small, "file 3")
    for dear in (
        png(np.zeros((64, 64))),
        png(np.random.default_rng(0).integers(0, 256, (55, 55))),
    ):
        with pytest.raises(Slow):
            Reader(DIGIT, limits(in_loop=True)).read(dear, "body")


@pytest.mark.parametrize(
    "data",
    [
        PNG[:8],
        PNG[:60],
        PNG[:-20],
        JPEG[:3],
        JPEG[:300],
        JPEG[: len(JPEG) - 30],
        header_only(0, 5),
    ],
)
def test_what_is_broken_is_said(data: bytes) -> None:
    sentence = "^body: expected a PNG or JPEG image, got one that is broken or cut off$"
    with pytest.raises(InvalidInput, match=sentence):
        read(data)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([PNG, JPEG]), st.integers(0, 10**6), st.binary(max_size=9))
def test_broken_pictures_are_answered_or_refused(good: bytes, place: int, noise: bytes) -> None:
    place %= len(good)
    with suppress(InvalidInput, TooLarge):
        read(good[:place] + noise + good[place + len(noise) :])


def test_numbers_are_shown_as_an_image_only_if_it_is_read_as_them() -> None:
    seven = card.Image(height=3, width=3, channels=1, preparation="")
    dark = [0.0, 0, 0, 0, 200, 0, 0, 0, 0]  # as the model takes it
    image = as_png(dark, seven)
    assert image is not None
    assert read(image, seven).ravel().tolist() == dark
    assert as_png([255.0] * 9, seven) is None  # paper: it would be read as an empty sheet
    assert as_png([0.5, *dark[1:]], seven) is None
