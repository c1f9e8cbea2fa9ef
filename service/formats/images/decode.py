"""Images, PNG or JPEG -> the pixels that a model takes.

A model whose card describes an image of one channel takes light strokes on a dark background, as
MNIST was made (ink.py). An image that is as the model takes it, of its size and with a dark border,
is left as it is. One for a model of three channels is scaled to its size, and that is all.
"""

import io
import math
import warnings
from time import perf_counter

import numpy as np
from PIL import ExifTags, Image

from service import card
from service.engine.model import Model
from service.errors import DeadlineExceeded, InvalidInput, TooLarge
from service.formats.images import limits as file_limits
from service.formats.images.ink import Floats, Pixels, prepared
from service.formats.message import Limits, Slow

AT_FULL_SIZE = 4  # so many images of the largest size may be in one request
LONGEST_SIDE = 65_535  # pixels, a JPEG's; a decoder allocates something for each row

# What is read in the event loop, in less than a millisecond all in all.
PIXELS_IN_LOOP = 4096  # of all images together
BYTES_IN_LOOP = 2048  # of one image: what is compressed in it is up to a thousand times that
PIXELS_OF_EACH = 800  # what an image costs besides its pixels, in pixels

# Levels are grey values, 0 to 255.
_WORKING_SIDE = 512  # pixels; a larger image is made smaller first
_STRIP = 2**18  # pixels that are made smaller together
_DARK = 32  # the border of an image that is as the model takes it is this at most
_ONE_TONE = 80  # ink alone spans less than this, ink and background more

_TURNS = {  # by orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = 5  # from this orientation on, width is height


def ignore_warnings() -> None:
    """Keep Pillow from writing to stderr of an image's metadata: nothing of that is used."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


class Reader:
    """Reads the images of one request for a model. Used by one thread."""

    def __init__(self, image: card.Image, limits: Limits) -> None:
        """Take what the model takes, and what reading may cost."""
        self._image = image
        self._limits = limits
        self._pixels = 0  # read up to now
        self._cost = 0

    def read(self, data: bytes, where: str) -> Pixels:
        """Return the pixels of a PNG or JPEG: uint8 (height * width * channels,).

        Raises InvalidInput with its place, TooLarge before it is decoded, DeadlineExceeded, Slow.
        """
        if self._limits.in_loop and len(data) > BYTES_IN_LOOP:
            raise Slow
        if perf_counter() > self._limits.deadline:
            raise DeadlineExceeded(f"{where}: the deadline passed before it was read")
        file_limits.check(data, where)
        image, orientation = self._decoded(file_limits.without_extras(data), where)
        if orientation in _TURNS:
            image = image.transpose(_TURNS[orientation])
        return self._pixels_of(image).ravel()

    def _decoded(self, data: bytes, where: str) -> tuple[Image.Image, int]:
        """Return an image, smaller where that is enough, and how it is to be turned."""
        try:
            # Only the header is read here.
            with Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as image:
                self._check_size(image.width, image.height, where)
                orientation = _orientation(image.info.get("exif", b""))
                height, width = self._image.height, self._image.width
                size = image.size[::-1] if orientation >= _SIDES_SWAPPED else image.size
                if size == (width, height):
                    image.load()
                    return image, orientation
                if not self._limits.prepare:
                    raise InvalidInput(
                        f"{where}: expected an image of {width} x {height} pixels, as "
                        f"prepare=false says, got {size[0]} x {size[1]}"
                    )
                side = max(_WORKING_SIDE, 2 * height, 2 * width)
                return _smaller(image, side), orientation
        except (InvalidInput, TooLarge, Slow, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise TooLarge(f"{where}: {self._expected_size()}, got far more") from error
        except Exception as error:  # decoders raise many kinds
            expected = file_limits.EXPECTED
            raise InvalidInput(f"{where}: {expected}, got one that is broken or cut off") from error

    def _expected_size(self) -> str:
        return f"expected an image of at most {self._limits.max_pixels} pixels"

    def _check_size(self, width: int, height: int, where: str) -> None:
        pixels = width * height
        if pixels > self._limits.max_pixels:
            raise TooLarge(f"{where}: {self._expected_size()}, got {width} x {height}")
        if max(width, height) > LONGEST_SIDE:
            expected = f"expected an image of at most {LONGEST_SIDE} pixels to a side"
            raise TooLarge(f"{where}: {expected}, got {width} x {height}")
        self._pixels += pixels
        if self._pixels > self._limits.max_pixels_in_all:
            raise TooLarge(
                f"{where}: expected at most {self._limits.max_pixels_in_all} pixels in all "
                f"images of one request, got more"
            )
        self._cost += pixels + PIXELS_OF_EACH
        if self._limits.in_loop and self._cost > PIXELS_IN_LOOP:
            raise Slow

    def _pixels_of(self, image: Image.Image) -> Pixels:
        height, width = self._image.height, self._image.width
        if self._image.channels == 3:
            return _resized(image, width, height)
        if not self._limits.prepare:
            return _grey(_flat(image, (0, 0, 0)))
        if image.size == (width, height) and not _is_clear(image):
            plane = _grey(image)
            if np.median(_border(plane)) <= _DARK:
                return plane
        return prepared(_on_background(image), height, width)


def _orientation(exif: bytes) -> int:
    """Return how the stored image is to be turned, 1 to 8, as EXIF 2.3 numbers it; 1 if unsaid.

    What is broken there is no reason to refuse an image.
    """
    try:
        tags = Image.Exif()
        tags.load(exif)
        found = int(tags.get(ExifTags.Base.Orientation, 1))
    except Exception:  # of many kinds
        return 1
    return found if found in _TURNS else 1


def image_of(model: Model) -> card.Image | None:
    """Return what images a model takes, by its card; None if it takes none that an image can be.

    That is of 1 or 3 channels, and of a type that holds 0 to 255.
    """
    image = model.card.image if model.card else None
    fits = image is not None and image.channels in (1, 3)
    return image if fits and np.can_cast(np.uint8, model.input.dtype) else None


def reader_for(model: Model, limits: Limits) -> Reader | None:
    """Return what reads images for a model, None if it takes none."""
    image = image_of(model)
    return None if image is None else Reader(image, limits)


def check_takes_images(model: Model, name: str) -> None:
    """Raise InvalidInput unless an image can be what the model takes."""
    if image_of(model) is None:
        takes = "any number of" if model.has_open_rows else model.row_size
        raise InvalidInput(
            f"model {name}: expected one that takes images of 1 or 3 channels, "
            f"got one that takes {takes} values"
        )


def as_png(numbers: list[float], image: card.Image) -> bytes | None:
    """Return a PNG that is read as these numbers of 0 to 255, None if there is none."""
    pixels = np.clip(numbers, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.reshape(image.shape)).save(file, "PNG")
    limits = Limits(1, pixels.size, pixels.size, deadline=math.inf)
    read = Reader(image, limits).read(file.getvalue(), "example")
    return file.getvalue() if np.array_equal(read, numbers) else None


def _is_clear(image: Image.Image) -> bool:
    """Whether it is transparent somewhere; what pages draw has opacities, mostly full ones."""
    if not image.has_transparency_data:
        return False
    return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)


def _smaller(image: Image.Image, side: int) -> Image.Image:
    """Return the image, decoded, with at most `side` pixels to a side, averaged; never larger."""
    image.draft(None, (side, side))  # of a JPEG, only what is needed is decoded
    width, height = image.size
    factor = math.ceil(max(width, height) / side)
    image.load()  # other threads run meanwhile
    if factor <= 1:
        return image
    # In strips, as none runs while Pillow converts and averages.
    rows = factor * max(1, _STRIP // (width * factor))
    strips = [
        _straightened(image.crop((0, top, width, min(top + rows, height)))).reduce(factor)
        for top in range(0, height, rows)
    ]
    size = strips[0].width, sum(strip.height for strip in strips)
    smaller, top = Image.new(strips[0].mode, size), 0
    for strip in strips:
        smaller.paste(strip, (0, top))
        top += strip.height
    return smaller


def _straightened(image: Image.Image) -> Image.Image:
    """Return the image, decoded, in one of the modes L, LA, RGB and RGBA."""
    if image.mode.startswith("I"):  # 16 bits; convert would clip them to 255
        levels = np.asarray(image)
        return Image.fromarray((levels >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _flat(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Return the image on a sheet of one colour."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*colour, 255)), image)


def _grey(image: Image.Image) -> Pixels:
    return np.asarray(_straightened(image).convert("L"))


def _resized(image: Image.Image, width: int, height: int) -> Pixels:
    """Return the image at this size, on white where it is transparent: uint8 (h, w, 3)."""
    flat = _flat(_straightened(image), (255, 255, 255)).convert("RGB")
    return np.asarray(flat.resize((width, height), Image.Resampling.BICUBIC))


def _on_background(image: Image.Image) -> Floats:
    """Return the image's colours on background that its ink is seen on: float32 (h, w, 3).

    What is drawn on nothing, in one tone, is put on the opposite one: dark ink on white, light ink
    on black. Where the image has background of its own as well, that goes on.
    """
    image = _straightened(image)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"), np.float32)
    layers = np.asarray(image.convert("RGBA"))
    tones = np.asarray(image.convert("RGB").convert("L"))[layers[..., 3] >= 128]
    background: Floats = np.full(3, 255, np.float32)
    if len(tones):
        low, middle, high = np.percentile(tones, (2, 50, 98))
        if high - low > _ONE_TONE:
            near = layers[(layers[..., 3] >= 128)][np.abs(tones - middle) <= _ONE_TONE / 4]
            background = np.median(near[:, :3], axis=0).astype(np.float32)
        elif middle >= 128:
            background = np.zeros(3, np.float32)
    opacity = layers[..., 3:].astype(np.float32) / 255  # (h, w, 1)
    return np.asarray(layers[..., :3] * opacity + background * (1 - opacity), np.float32)


def _border(plane: Pixels) -> Pixels:
    sides = (plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1])
    return np.concatenate(sides)
