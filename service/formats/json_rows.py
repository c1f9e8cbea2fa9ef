"""Request bodies -> rows for the model, or an error that names the place.

There are two ways through. The fast one lets simdjson turn all numbers of the body into one
array. Whatever does not fit it goes the slow one, which walks the body as Python objects: it
is the definition of what is accepted, and it finds the words for what is not. Both give the
same rows (tests/service/test_inputs.py compares them).
"""

import base64
import binascii
import difflib
import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np
import simdjson
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.images import limits as imagefile
from service.formats.images.decode import Reader, image_of
from service.formats.images.ink import Pixels

FIELDS = frozenset({"model", "version", "instances"})
EXAMPLE = '{"model": ..., "instances": [...]}'

# A -0 without fraction or exponent. What stands before it comes last: a search that begins with
# two fixed characters is ten times faster.
_MINUS_ZERO = re.compile(rb"-0[\],}\s](?<=[\[,:\s]-0.)", re.DOTALL)
_SHORT = 1000  # bytes that are searched for it in a microsecond
_MINUS = ord("-")
_EXACT_IN_FLOAT = 2**53  # a float from here on may stand for several whole numbers
# The least float that a type rounds to infinity: half a step above the largest number, so that
# 3.4028235e38 fits float32, whose largest is below that but printed so. Infinity for float64.
_LEAST_INFINITE: dict[type[np.generic], float] = {
    dtype: float(np.finfo(dtype).max) + float(np.finfo(dtype).eps) * 2.0 ** (exponent - 1)
    for dtype, exponent in ((np.float16, 15), (np.float32, 127), (np.float64, 1023))
}
_LARGE = _LEAST_INFINITE[np.float32]
_TOO_DEEP = "expected JSON, got lists or objects nested too deeply"
_NUMBERS = frozenset({int, float})
_CHUNK = 2**18  # characters of base64 that are decoded at once: nobody else runs meanwhile


T = TypeVar("T")
Fields: TypeAlias = dict[str, Any]  # of a body; its lists are simdjson's where that fitted


class Unfit(Exception):
    """The fast way does not fit what was sent; take the slow one."""


class BodyParser:
    """Parses bodies. Of what it gives, only one may live at a time: drop it before the next."""

    def __init__(self) -> None:
        self._simdjson = simdjson.Parser()

    def parse(self, body: bytes, known: frozenset[str] = FIELDS) -> Fields:
        """Return the fields of the JSON object in `body`, all known. Raises InvalidInput."""
        try:
            document: Any = self._simdjson.parse(body)
            fields = {name: document[name] for name in document}
            if len(fields) == len(document) and fields.keys() <= known:
                return fields
        except Exception:  # simdjson's are of many kinds; the slow way says what is wrong
            self._simdjson = simdjson.Parser()  # a document left alive would block the old one
        return parse_slowly(body, known)


def to_rows(fields: Fields, body: bytes, model: Model, max_rows: int) -> NDArray[Any] | None:
    """Return the instances of a body as rows (n, ...) of the model's dtype and row shape, n >= 1.

    None if there may be pictures among them, which take longer: see pictures.py. Raises
    InvalidInput with the place of the first thing that does not fit, and TooLarge.
    """
    instances = fields.get("instances")
    if type(instances) is simdjson.Array:
        try:
            return fast_rows(instances, body, model, max_rows)
        except TooLarge:
            raise
        except Exception:  # as above
            if may_hold_pictures(body, model):
                return None
            fields = parse_slowly(body, frozenset(fields))
    elif may_hold_pictures(body, model):
        return None
    return slow_rows(fields, model, max_rows)


def may_hold_pictures(body: bytes, model: Model) -> bool:
    """Whether a model takes images, and JSON has what looks like a picture."""
    return image_of(model) is not None and b'"b64"' in body


def fast_rows(instances: Any, body: bytes, model: Model, max_rows: int) -> NDArray[np.float32]:
    """Return `instances`, a simdjson array of `body`, as rows: float32 (n, ...).

    Raises TooLarge; anything else means that the slow way is needed.
    """
    if model.input.dtype is not np.float32:
        raise Unfit
    count = len(instances)
    if count == 0:
        raise Unfit
    check_count(count, max_rows)
    first: Any = instances[0]
    is_named = type(first) is simdjson.Object
    if is_named:
        values = _named_values(instances, model)
    else:
        _check_nesting(instances, first, body, model)
        values = np.frombuffer(instances.as_buffer(of_type="d"))  # float64 (n * row_size,)
    # What nearly all bodies need no function for: for small ones two calls are felt.
    if not np.vdot(values, values) < _LARGE and not stay_finite(values, np.float32):
        raise Unfit
    rows = values.astype(np.float32)
    if _MINUS in body and lost_a_sign(body, values):
        if is_named:
            raise Unfit
        give_signs(rows, body)
    return rows.reshape(count, *model.input.shape[1:])


def stay_finite(values: NDArray[np.float64], dtype: type[np.generic]) -> bool:
    """Whether all of `values` are finite, also when they are rounded to a type of floats."""
    limit = _LEAST_INFINITE[dtype]
    if np.vdot(values, values) < limit:  # the sum of squares; `dot` warns where that overflows
        return True
    return bool(np.abs(values).max() < limit)  # false for NaN


def lost_a_sign(text: bytes, values: NDArray[np.float64]) -> bool:
    """Whether JSON has a -0 that is 0 in `values`, which simdjson read from it.

    To simdjson it is a whole number, which has no such sign; -0.0 keeps it. Few long texts are
    searched for it: most have no zero, or no minus that is not in `values` too.
    """
    if len(text) >= _SHORT and (
        np.count_nonzero(values) == len(values)
        or minus_signs(text) == np.count_nonzero(np.signbit(values))
    ):
        return False
    return _MINUS_ZERO.search(text) is not None


def give_signs(numbers: NDArray[np.floating[Any]], text: bytes) -> None:
    """Give each number (n,) the sign of the -0 that it is in the first list of a JSON text.

    That holds nothing but numbers, in lists none of which is empty: there is a comma between two.
    """
    start = text.index(b"[")
    found = [each.start() for each in _MINUS_ZERO.finditer(text, start)]
    commas = np.flatnonzero(np.frombuffer(text, np.uint8, offset=start) == ord(",")) + start
    places = np.searchsorted(commas, found)
    numbers[places[places < len(numbers)]] = -0.0  # what is behind the list is none of them


def minus_signs(text: bytes) -> int:
    """Return how many minus signs are in the lists of a JSON text, but for those of exponents."""
    start, end = text.index(b"["), text.rindex(b"]") + 1
    characters = np.frombuffer(text, np.uint8, end - start, start)
    signs = np.count_nonzero(characters == _MINUS)
    if text.find(b"e", start, end) >= 0 or text.find(b"E", start, end) >= 0:
        exponents = np.flatnonzero(characters | 0x20 == ord("e"))  # E too
        signs -= np.count_nonzero(characters[exponents + 1] == _MINUS)
    return int(signs)


def _check_nesting(instances: Any, first: Any, body: bytes, model: Model) -> None:
    """Raise Unfit unless each instance is a flat row, or each is nested as the model's shape.

    `as_buffer` flattens whatever it gets: [[1, 2, 3], [4, 5, 6, 7, 8]] is not two rows of 4,
    nor is [[1, [2, 3], 4]] one. So the length of each list is looked at, and the opening
    brackets of the body are counted: they leave no room for a list that was not looked at.
    """
    size = model.row_size
    if len(first) == size:
        lists = 1 + len(instances)
        fits = len(instances) == 1 or {size}.issuperset(map(len, instances))
    else:
        lists, fits = nested(instances, (len(instances), *model.row_shape))
    if not fits or opening_brackets(body) != lists:
        raise Unfit


def opening_brackets(body: bytes) -> int:
    """Return how many lists a JSON text begins, if no string in it holds a bracket."""
    if len(body) < 4_000:
        return body.count(b"[")
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")))  # faster then


def nested(array: Any, shape: tuple[int, ...]) -> tuple[int, bool]:
    """Return how many lists `array` is made of, and whether they are nested as `shape`."""
    if len(array) != shape[0]:
        return 0, False
    if len(shape) == 1:
        return 1, True
    total = 1
    for inner in array:
        lists, fits = nested(inner, shape[1:])
        if not fits:
            return 0, False
        total += lists
    return total, True


def _named_values(instances: Any, model: Model) -> NDArray[np.float64]:
    """Return objects of named features as one array (n * row_size,), in feature order."""
    names = model.feature_names
    values: list[float] = []
    for instance in instances:
        if len(instance) != len(names):
            raise Unfit
        named = instance.as_dict()
        if len(named) != len(names):  # a name came twice
            raise Unfit
        values += [named[name] for name in names]
    if not names or not _NUMBERS.issuperset(map(type, values)):
        raise Unfit
    return np.array(values, np.float64)


def parse_slowly(body: bytes, known: frozenset[str]) -> Fields:
    """Return the body as a JSON object with known fields. Raises InvalidInput."""
    if not body.strip():
        raise InvalidInput(f"body: expected a JSON object {EXAMPLE}, got nothing")
    if imagefile.is_picture(body):
        raise InvalidInput("body: expected JSON, got a picture: say so (Content-Type: image/png)")
    document = parsed(body, "body")
    if not isinstance(document, dict):
        raise InvalidInput(f"body: expected a JSON object {EXAMPLE}, got {shown(document)}")
    for field in document:
        if field not in known:
            raise InvalidInput(f"{_quoted(field)}: unknown field{did_you_mean(field, known)}")
    return document


def parsed(text: bytes, where: str) -> Any:
    """Return what JSON says, as Python objects; -0 as a float. Raises InvalidInput."""
    has_minus_zero = _MINUS in text and _MINUS_ZERO.search(text)
    try:
        return json.loads(text.decode("utf-8-sig"), parse_int=_signed if has_minus_zero else None)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: expected JSON in UTF-8, got byte {error.start} that is not"
        ) from error
    except RecursionError as error:
        raise InvalidInput(f"{where}: {_TOO_DEEP}") from error
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where}: expected JSON, got: {error}") from error
    except ValueError as error:
        raise InvalidInput(f"{where}: expected JSON, got a number of too many digits") from error


def _signed(digits: str) -> float:
    """Return a whole number; -0 as a float, as an integer has no such sign."""
    return -0.0 if digits == "-0" else int(digits)


def slow_rows(
    fields: Fields, model: Model, max_rows: int, reader: Reader | None = None
) -> NDArray[Any]:
    """Return the instances of a body as rows (n, ...) of the model's dtype and row shape.

    `reader` reads those that are {"b64": ...}. Raises InvalidInput with the place of the first
    thing that does not fit, and TooLarge.
    """
    if "instances" not in fields:
        raise InvalidInput("instances: expected a list of instances, got no such field")
    instances = fields["instances"]
    if not isinstance(instances, list):
        raise InvalidInput(f"instances: expected a list of instances, got {shown(instances)}")
    if not instances:
        raise InvalidInput("instances: expected at least one instance, got an empty list")
    check_count(len(instances), max_rows)
    rows = [
        row_or_picture(each, f"instances[{index}]", model, reader)
        for index, each in enumerate(instances)
    ]
    return model.rows_of(rows)


def decoded(text: bytes | memoryview, decoder: msgspec.json.Decoder[T]) -> T:
    """Return what a decoder makes of JSON. Raises InvalidInput with the place that does not fit."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$")
        where = place.rstrip("`").lstrip(".") or "body"
        raise InvalidInput(f"{where}: {sentence[0].lower()}{sentence[1:]}") from error
    except RecursionError as error:
        raise InvalidInput(f"body: {_TOO_DEEP}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput("body: expected JSON in UTF-8, got something else") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"body: expected JSON, got: {error}") from error


def shown(value: Any) -> str:
    """Say in a few words what a JSON value is, for an error message."""
    if isinstance(value, list | simdjson.Array):
        return f"a list of {len(value)}"
    if isinstance(value, dict | simdjson.Object):
        return f"an object of {len(value)} fields"
    text = json.dumps(value, ensure_ascii=False)
    if text == "-0.0":  # it may have been -0
        return "-0"
    return text if len(text) <= 40 else text[:40] + "..."


def check_count(count: int, max_rows: int) -> None:
    """Raise TooLarge for more instances than one request may have."""
    if count > max_rows:
        raise TooLarge(f"instances: expected at most {max_rows} in one request, got {count}")


def row_or_picture(
    instance: Any, where: str, model: Model, reader: Reader | None
) -> list[float] | Pixels:
    """Return one instance as its numbers in order, those of a picture if it is {"b64": ...}.

    Raises InvalidInput with its place, and what `Reader.read` raises.
    """
    if reader is not None and isinstance(instance, dict) and instance.keys() == {"b64"}:
        place = f"{where}.b64"
        return reader.read(_decoded(instance["b64"], place), place)
    return row(instance, where, model)


def row(instance: Any, where: str, model: Model) -> list[float]:
    """Return one instance as its numbers in order. Raises InvalidInput with its place."""
    names, size, shape = model.feature_names, model.row_size, model.row_shape
    dtype = model.input.dtype
    if isinstance(instance, dict) and names:
        return _named_row(instance, where, names, model)
    if not isinstance(instance, list):
        raise InvalidInput(f"{where}: expected {_expected(model)}, got {shown(instance)}")
    if len(instance) == size and not isinstance(instance[0], list):
        if _all_fit(instance, model):
            return instance
        return [
            number(value, f"{where}.{names[index]}" if names else f"{where}[{index}]", dtype)
            for index, value in enumerate(instance)
        ]
    if len(shape) > 1 and instance and isinstance(instance[0], list):
        return _nested_row(instance, where, shape, model)
    raise InvalidInput(f"{where}: expected {_expected(model)}, got {shown(instance)}")


def _decoded(text: Any, where: str) -> bytes:
    """Return the bytes that base64 says, also in a data: URL. Raises InvalidInput."""
    expected = f"{where}: expected a PNG or JPEG image in base64"
    if not isinstance(text, str):
        raise InvalidInput(f"{expected}, got {shown(text)}")
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidInput(f"{expected}, got {shown(head[:40])}")
    if "\n" in text:  # as base64 and Python's encodebytes write it
        text = "".join(text.split())
    try:
        chunks = range(0, len(text), _CHUNK)
        return b"".join(
            base64.b64decode(text[start : start + _CHUNK], validate=True) for start in chunks
        )
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{expected}, got {shown(text)}: {error}") from error


def _named_row(
    instance: dict[str, Any], where: str, names: Sequence[str], model: Model
) -> list[float]:
    for name in instance:
        if name not in names:
            hint = did_you_mean(name, names)
            raise InvalidInput(f"{where}: {_quoted(name)}: unknown feature{hint}")
    for name in names:
        if name not in instance:
            raise InvalidInput(f"{where}.{name}: expected a number, got no such field")
    return [number(instance[name], f"{where}.{name}", model.input.dtype) for name in names]


def _nested_row(array: Any, where: str, shape: tuple[int, ...], model: Model) -> list[float]:
    if not shape:
        return [number(array, where, model.input.dtype)]
    if not isinstance(array, list) or len(array) != shape[0]:
        raise InvalidInput(f"{where}: expected a list of {shape[0]}, got {shown(array)}")
    if len(shape) == 1 and _all_fit(array, model):
        return array
    numbers: list[float] = []
    for index, inner in enumerate(array):
        numbers += _nested_row(inner, f"{where}[{index}]", shape[1:], model)
    return numbers


def _all_fit(values: list[Any], model: Model) -> bool:
    """Whether `number` would surely take all of them; says it 20 times faster."""
    dtype = np.dtype(model.input.dtype)
    if dtype.kind != "f" or not _NUMBERS.issuperset(map(type, values)):
        return False
    try:
        return stay_finite(np.array(values, np.float64), model.input.dtype)
    except OverflowError:  # a whole number beyond float64
        return False


def number(value: Any, where: str, scalar: type[np.generic]) -> float:
    """Return a JSON value as a number that fits a type. Raises InvalidInput with its place."""
    dtype = np.dtype(scalar)
    if type(value) not in _NUMBERS:
        raise InvalidInput(f"{where}: expected a number, got {shown(value)}")
    if dtype.kind == "f":
        as_float = _as_float(value)
        if not abs(as_float) < _LEAST_INFINITE[scalar]:  # also true for NaN
            largest = float(np.finfo(dtype).max)
            raise InvalidInput(
                f"{where}: expected a finite number that fits {dtype} "
                f"(at most {largest:.3g}), got {shown(value)}"
            )
        return as_float
    limits = np.iinfo(dtype)
    fits = limits.min <= value <= limits.max and value == int(value)
    is_exact = type(value) is int or abs(value) < _EXACT_IN_FLOAT
    if fits and is_exact:
        return int(value)
    how = ", written without a fraction as floats are exact only below 2**53" if fits else ""
    raise InvalidInput(
        f"{where}: expected a whole number from {limits.min} to {limits.max}{how}, "
        f"got {shown(value)}"
    )


def _as_float(value: float) -> float:
    """Return the nearest float to a whole number, or infinity."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _expected(model: Model) -> str:
    names, shape = model.feature_names, model.row_shape
    text = f"a list of {model.row_size} numbers"
    if names:
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"{text} or an object of {listed}"
    if len(shape) > 1:
        text += f" or nested lists of {' x '.join(map(str, shape))}"
    return text + (' or {"b64": a PNG or JPEG}' if image_of(model) else "")


def _quoted(name: str) -> str:
    return json.dumps(name if len(name) <= 40 else name[:40] + "...", ensure_ascii=False)


def did_you_mean(name: str, names: Sequence[str] | frozenset[str], *, or_all: bool = True) -> str:
    """Say for an error message which of `names` is like `name`; if none is, all or nothing."""
    near = difflib.get_close_matches(name[:40], sorted(names), n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected {', '.join(sorted(names))}" if or_all else ""
