"""JSON Lines: an instance in each line."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput, RequestError
from service.formats.csv_rows import check_lines, stacked
from service.formats.images.decode import image_of, reader_for
from service.formats.json_rows import row_or_image
from service.formats.json_text import parsed
from service.formats.lines import Bad, Lines, Options, Row, Tape
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow
from service.formats.turns import Turns
from service.words import shown

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
NOTHING_KEPT = Raw(b"{}")


class JsonLinesMessage:
    """A body of JSON Lines. It can say nothing beside the instances."""

    needs_images = False

    def __init__(self, body: bytes) -> None:
        self.fields: Fields = {}
        self._body = body

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the lines as rows; see Message. Blank lines are none."""
        check_lines(self._body, limits)
        if limits.in_loop and len(self._body) > LARGEST_IN_LOOP:
            raise Slow
        reader = reader_for(model, limits) if b'"b64"' in self._body else None
        rows: list[NDArray[Any]] = []
        give_way = Turns()
        for number, line in enumerate(self._body.split(b"\n"), 1):
            if line.strip():
                give_way()
                where = f"line {number}"
                limits.check_count(len(rows) + 1)
                row = row_or_image(parsed(line, where), where, model, reader)
                rows.append(np.array(row, model.row_dtype))  # of much less memory
        return stacked(rows, model, limits)


def read(body: bytes, known: frozenset[str], content_type: str) -> JsonLinesMessage:
    """Take a body of JSON Lines."""
    return JsonLinesMessage(body)


class JsonRows:
    """The rows of JSON Lines: each an instance as POST /predict takes it."""

    unit = "line"

    def __init__(self, tape: Tape, model: Model, options: Options) -> None:
        """Take the lines of a file. `options.keep`: an object may have other fields too."""
        self.kept_names: list[str] = []
        self._lines = Lines(tape, options.longest)
        self._instance = InstanceOfFile(model, options)

    def __iter__(self) -> Iterator[Row | Bad]:
        """Yield each row."""
        while True:
            number = self._lines.number + 1
            try:
                line = self._lines.take()
                self._lines.pass_row()
                if line.strip():
                    yield self._row(line, number)
            except RequestError as error:  # an image may be too large
                yield Bad(number, str(error))
                continue
            if not line:
                return

    def _row(self, line: bytes, number: int) -> Row:
        where = f"line {number}"
        return Row(number, *self._instance.read(parsed(line, where), where))


class InstanceOfFile:
    """Reads the instances of a file, and what stands beside their features."""

    def __init__(self, model: Model, options: Options) -> None:
        self._model = model
        self._names = ["b64"] if image_of(model) else model.column_names
        self._keep = options.keep
        pixels = options.max_image_pixels
        self._limits = Limits(1, pixels, pixels, deadline=math.inf)

    def read(self, instance: Any, where: str) -> tuple[Any, Raw]:
        """Return the values of an instance, and the other fields that are kept, as JSON.

        Raises InvalidInput, TooLarge.
        """
        kept = NOTHING_KEPT
        if isinstance(instance, dict) and self._names:
            others = {name: each for name, each in instance.items() if name not in self._names}
            features = {name: instance[name] for name in self._names if name in instance}
            if self._keep:
                instance, kept = features, _copied(others, where)
            elif others and len(features) == len(self._names):
                name = shown(next(iter(others)))
                raise InvalidInput(f"{where}: {name}: unknown field; --keep copies such fields")
        reader = reader_for(self._model, self._limits)
        return row_or_image(instance, where, self._model, reader), kept


def _copied(fields: dict[str, Any], where: str) -> Raw:
    """Return fields as JSON. Raises InvalidInput for what JSON in UTF-8 cannot say."""
    try:
        _check_names(fields)
        return Raw(_JSON.encode(fields).encode())
    except UnicodeEncodeError:
        got = "half of a surrogate pair"
    except ValueError:
        got = "NaN, or a number beyond float64"
    except RecursionError:
        got = "lists or objects nested too deeply"
    except TypeError:  # of MessagePack
        got = "bytes, or another type that JSON has not"
    raise InvalidInput(f"{where}: expected other fields that can be copied, got {got}")


def _check_names(value: Any) -> None:
    """Raise TypeError for a name that is no text: MessagePack may have both 1 and "1"."""
    if isinstance(value, dict):
        if not all(type(name) is str for name in value):
            raise TypeError
        value = [*value.values()]
    if isinstance(value, list):
        for each in value:
            _check_names(each)
