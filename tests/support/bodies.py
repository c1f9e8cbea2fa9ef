"""Bodies that hold rows, read without HTTP."""

import io
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from numpy.typing import NDArray

from service.engine.model import Model
from service.formats import json_fast, numbers
from service.formats.lines import Bad, Options, Row, Rows, Tape
from service.formats.message import Limits, Message

FIELDS = frozenset({"model", "version", "instances"})


def limits(max_rows: int = 100, **changes: Any) -> Limits:
    """Return limits that a test does not reach, but for those that it sets."""
    known = {"max_pixels": 10**6, "max_pixels_in_all": 4 * 10**6, "deadline": math.inf}
    return Limits(max_rows, **known | changes)


def instances(text: str) -> str:
    """Return a body of JSON that has these instances."""
    return f'{{"instances": {text}}}'


def large(body: str) -> str:
    """Return a body of JSON that is long, by spaces behind it: simdjson reads those."""
    return body + " " * numbers.SMALL


def message(body: bytes | str) -> Message:
    """Take a body of JSON apart."""
    return json_fast.read(body.encode() if isinstance(body, str) else body, FIELDS)


def read(body: bytes | str, model: Model, max_rows: int = 100) -> NDArray[Any]:
    """Return the rows of a body of JSON."""
    return message(body).rows(model, limits(max_rows))


class SlowWay(Exception):
    """The slow way was taken."""


def went_fast(body: bytes | str, model: Model) -> bool:
    """Whether a body of JSON is read without a look at each of its values."""

    def forbidden(*_: object) -> None:
        raise SlowWay

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_fast, "parse", forbidden)
        try:
            read(body, model)
        except SlowWay:
            return False
    return True


def file_rows(
    read: Callable[[Tape, Model, Options], Rows],
    content: bytes,
    model: Model,
    *,
    longest: int = 2**20,
    keep: bool = False,
    max_image_pixels: int = 10**6,
) -> Rows:
    """Return the rows of a file, the first of which is not read yet."""
    options = Options(longest=longest, keep=keep, max_image_pixels=max_image_pixels)
    return read(Tape(io.BytesIO(content)), model, options)


def told(rows: Iterable[Row | Bad]) -> list[tuple[int, list[float] | str]]:
    """Return the line of each row with its numbers, or with why it is a bad one."""
    return [(row.line, row.why if isinstance(row, Bad) else list(row.values)) for row in rows]
