"""A column of images, their bytes or their paths -> the pixels that a model takes."""

import errno
import math
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.batch.inputs import is_binary
from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.images.decode import image_of, reader_for
from service.formats.images.ink import Pixels
from service.formats.message import Limits
from service.settings import Settings
from service.words import shown

PATH = "path"  # the column of paths


class Images:
    """Reads the images of tables for one model."""

    def __init__(self, model: Model, settings: Settings) -> None:
        """Take a model, of images or not, and what an image may cost."""
        self._model = model
        self.are_taken = image_of(model) is not None
        self._longest = settings.max_body_bytes
        self._limits = Limits(1, settings.max_image_pixels, 2**62, deadline=math.inf)

    def are_in(self, schema: pa.Schema) -> bool:
        """Whether a table has a column of images, and the model takes them."""
        return self.name_in(schema) is not None

    def name_in(self, schema: pa.Schema) -> str | None:
        """Return the name of the column of images, if there is one and the model takes them."""
        place = self._place(schema) if self.are_taken else None
        return None if place is None else str(schema.names[place])

    def _place(self, schema: pa.Schema) -> int | None:
        of_bytes = [place for place, each in enumerate(schema.types) if is_binary(each)]
        if len(of_bytes) == 1:
            return of_bytes[0]
        place = schema.get_field_index(PATH)
        return None if place < 0 else int(place)

    def pixels(self, batch: pa.RecordBatch, place: int) -> Pixels:
        """Return the pixels of the image of a row, flat. Raises InvalidInput, TooLarge."""
        column = self._place(batch.schema)
        reader = reader_for(self._model, self._limits)
        if column is None or reader is None:
            raise RuntimeError("there is no column of images. This is a bug.")
        return reader.read(self._bytes(batch.column(column)[place].as_py()), "")

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, dict):  # as Hugging Face's datasets have them
            value = value.get("bytes") or value.get(PATH)
        if isinstance(value, str):
            value = self._read(value)
        if not isinstance(value, bytes):
            raise InvalidInput(f": expected an image, got {shown(value)}")
        if len(value) > self._longest:
            raise TooLarge(
                f": expected an image of at most {self._longest} bytes, got {len(value)}"
            )
        return value

    def _read(self, path: str) -> bytes:
        try:
            if not Path(path).is_file() and Path(path).exists():  # reading a pipe would never end
                raise OSError(errno.EINVAL, "not a file")
            with Path(path).open("rb") as file:
                return file.read(self._longest + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise InvalidInput(
                f": expected the path of an image, got {shown(path)}: {why}"
            ) from error
