"""Files of images -> blocks, which carry their bytes."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from msgspec import Struct

from service.batch.answered import Answered, Position
from service.batch.scorer import Scorer
from service.errors import InvalidInput

UNIT = "file"
MOST_IMAGES, MOST_BYTES = 64, 2**23  # of a block
_COLUMN = "image"


class Picture(Struct, frozen=True):
    """A file: what it is called, and its bytes or why it has none."""

    name: str
    content: bytes = b""
    why: str = ""


class ImageBlock(Struct, frozen=True):
    """Some files."""

    pictures: list[Picture]

    def answer(self, scorer: Scorer) -> Answered:
        """Return the answers to the images."""
        read = [each for each in self.pictures if not each.why]
        images = pa.array([each.content for each in read], pa.binary())
        answers = scorer.of_batch(pa.RecordBatch.from_arrays([images], [_COLUMN]))
        names = np.array([each.name for each in read], np.object_)
        columns = [pa.array(names[answers.places], pa.string()), *answers.columns.columns]
        why = {each.name: each.why for each in self.pictures}
        why |= {names[place]: f"{names[place]}{what}" for place, what in answers.bad}
        table = pa.RecordBatch.from_arrays(columns, [UNIT, *answers.columns.schema.names])
        return Answered(table, [each for each in why.values() if each])


class ImageInput:
    """The blocks of files of images."""

    unit = UNIT
    kept = pa.schema([])

    def __init__(self, files: Sequence[tuple[str, Path]], scorer: Scorer, longest: int) -> None:
        """Take names and paths of files, of which `longest` bytes are read.

        Raises InvalidInput for a model that takes no images.
        """
        if not scorer.takes_images:
            raise InvalidInput(f"{scorer.name}: expected a model that takes images")
        self._files = files
        self._longest = longest
        self._sha256 = sha256()
        self._bytes = self._number = 0

    @property
    def position(self) -> Position:
        """What is passed: the digest is that of names and contents."""
        return Position(self._bytes, self._number, self._sha256.hexdigest())

    def pass_to(self, position: Position) -> bool:
        """Pass what another run has passed; return whether it was the same as there."""
        for _, _ in self:
            if self._number >= position.number:
                break
        return self.position == position

    def __iter__(self) -> Iterator[tuple[ImageBlock, Position]]:
        """Yield each block, and the position behind it."""
        pictures: list[Picture] = []
        while self._number < len(self._files):
            pictures.append(self._next())
            is_full = sum(len(each.content) for each in pictures) >= MOST_BYTES
            if is_full or len(pictures) == MOST_IMAGES or self._number == len(self._files):
                yield ImageBlock(pictures), self.position
                pictures = []

    def _next(self) -> Picture:
        name, path = self._files[self._number]
        self._number += 1
        try:
            with path.open("rb") as file:
                content = file.read(self._longest + 1)
        except OSError as error:
            self._sha256.update(f"{name}\n".encode())
            return Picture(name, why=f"{name}: cannot be read: {error.strerror}")
        self._sha256.update(f"{name}\n{len(content)}\n".encode())
        self._sha256.update(content)
        self._bytes += len(content)
        return Picture(name, content)
