"""JSON bodies, fast: small ones through msgspec, others through simdjson.

msgspec makes Python's numbers, which costs least for few; simdjson makes one array of all. What
does not fit goes the slow way (json_rows.py), which is the definition of what is accepted and
finds the words for what is not. All give the same rows. No document of simdjson leaves here.
"""

import math
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import msgspec
import numpy as np
import simdjson
from msgspec import UNSET, Struct
from numpy.typing import NDArray

from service.engine.model import Model
from service.errors import TooLarge
from service.formats.images.decode import reader_for
from service.formats.json_columns import rows_of_body, rows_of_list
from service.formats.json_rows import Instances, parse, slow_rows, unknown_field
from service.formats.message import LARGEST_IN_LOOP, Fields, Limits, Slow
from service.formats.numbers import (
    EXACT_IN_FLOAT,
    LEAST_INFINITE,
    MINUS,
    NUMBERS,
    Unfit,
    are_finite_as,
    give_signs,
    is_small,
    lost_a_sign,
    stay_finite,
)

_SOME_FIELDS = 16  # of a body that are looked at before all of it is read slowly
_CONTAINERS = (simdjson.Array, simdjson.Object)
_BUFFER_DTYPES = {"i": np.int64, "u": np.uint64}  # of simdjson's arrays of whole numbers


class _Parsers(threading.local):
    """A parser for each thread: a new one for each text costs 5 % of a request of 784 numbers."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()

    def parse(self, text: bytes) -> Any:
        """Return the document in a text; raises errors of many kinds."""
        try:
            return self.parser.parse(text)
        except RuntimeError:  # a document that lives blocks its parser
            self.parser = simdjson.Parser()
            return self.parser.parse(text)


_parsers = _Parsers()


class WrongCount(Exception):
    """A flat list has `count` elements, which are not as many as the shape says."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


class JsonMessage(Struct):
    """A JSON object whose instances are an array of simdjson's, or lists or dicts of floats."""

    needs_images: ClassVar[bool] = False
    fields: Fields
    _instances: Any
    _body: bytes
    _known: frozenset[str]

    def rows(self, model: Model, limits: Limits) -> NDArray[Any]:
        """Return the instances as rows; see Message."""
        body, instances = self._body, self._instances
        self._instances = None  # once is enough, and the document takes memory
        if instances is not None:
            try:
                if type(instances) is list:
                    return _small_rows(instances, model, limits)
                if model.row_dtype is np.object_ and model.columns:
                    del instances
                    return rows_of_body(body, model, limits)
                return fast_rows(instances, body, model, limits)
            except TooLarge:
                raise
            except Exception:  # simdjson's are of many kinds; the slow way says what is wrong
                instances = None
        if limits.in_loop and len(body) > LARGEST_IN_LOOP:
            raise Slow
        reader = reader_for(model, limits) if b'"b64"' in body else None
        return slow_rows(parse(body, self._known).get("instances"), model, limits, reader)


def read(
    body: bytes, known: frozenset[str], content_type: str = "application/json"
) -> JsonMessage | Instances:
    """Take a JSON body apart: an object of no other fields than those known.

    Raises InvalidInput.
    """
    if is_small(body):
        try:
            return _read_small(body, known)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        document: Any = _parsers.parse(body)
        # simdjson finds a field by a walk over all of them: of many that would never end.
        fields = {name: document[name] for name in document} if len(document) <= len(known) else {}
        instances = fields.pop("instances", None)
        is_known = len(fields) + 1 == len(document) and known.issuperset(fields)
        if is_known and type(instances) is simdjson.Array:
            for name, value in fields.items():
                if type(value) in _CONTAINERS:
                    fields[name] = msgspec.json.decode(value.mini)
            return JsonMessage(fields, instances, body, known)
        is_object = type(document) is simdjson.Object
        names = [*document] if is_object and len(document) <= _SOME_FIELDS else []
    except Exception:  # simdjson's are of many kinds; the slow way says what is wrong
        names = []
    for name in names:
        if name not in known:
            raise unknown_field(name, known)
    document = parse(body, known)
    return Instances(document, document.pop("instances", UNSET), len(body), b'"b64"' in body)


@cache
def _decoder(known: frozenset[str]) -> Callable[[bytes], Any]:
    """Return what decodes a body of fields that are known."""
    instances = ("instances", list[list[float] | dict[str, float]])
    others = [(name, Any, UNSET) for name in known - {"instances"}]
    body = msgspec.defstruct("Body", [instances, *others], forbid_unknown_fields=True)
    return msgspec.json.Decoder(body).decode


def _read_small(body: bytes, known: frozenset[str]) -> JsonMessage:
    """As `read`; raises msgspec's errors for what does not fit."""
    document = _decoder(known)(body)
    fields = {
        name: value
        for name in known
        if name != "instances" and (value := getattr(document, name)) is not UNSET
    }
    return JsonMessage(fields, document.instances, body, known)


def _small_rows(
    instances: list[list[float] | dict[str, float]], model: Model, limits: Limits
) -> NDArray[Any]:
    """Return instances as rows (n, ...). Raises TooLarge; anything else: take the slow way."""
    dtype = model.row_dtype
    if dtype not in LEAST_INFINITE or not instances:
        raise Unfit  # a whole number may be none any more
    if len(instances) > limits.max_rows:
        limits.check_count(len(instances))
    size, names = model.row_size, model.column_names
    rows = []
    for instance in instances:
        if len(instance) != size or (isinstance(instance, dict) and not names):
            raise Unfit
        row = [*map(instance.__getitem__, names)] if isinstance(instance, dict) else instance
        if not are_finite_as(row, dtype):
            raise Unfit
        rows.append(row)
    return model.rows_of(rows)


def read_lists(text: bytes, model: Model, limits: Limits) -> NDArray[Any]:
    """Return JSON lists of numbers as rows (n, ...).

    Raises TooLarge; anything else means that the slow way is needed.
    """
    if model.row_dtype is np.object_ and model.columns:
        return rows_of_list(text, model, limits)
    return fast_rows(_parsers.parse(text), text, model, limits)


def fast_rows(instances: Any, body: bytes, model: Model, limits: Limits) -> NDArray[Any]:
    """Return `instances`, a simdjson array of `body`, as rows (n, ...).

    Raises TooLarge; anything else means that the slow way is needed.
    """
    count = len(instances)
    if count == 0:
        raise Unfit
    if count > limits.max_rows:
        limits.check_count(count)
    first: Any = instances[0]
    if type(first) is simdjson.Object:
        rows = _named_numbers(instances, body, model)
        return rows.reshape(count, *model.row_dims)
    shape = model.row_dims
    if model.has_open_rows:
        shape = _check_open_nesting(instances, first, body, model)
    elif model.row_size == 1 and type(first) is not simdjson.Array:
        if _opening_brackets(body) != 1:
            raise Unfit  # not all are values
    else:
        _check_nesting(instances, first, body, model)
    return _numbers(instances, body, model.row_dtype).reshape(count, *shape)


def _numbers(array: Any, text: bytes, dtype: type[np.generic]) -> NDArray[Any]:
    """Return the numbers of an array of simdjson's in `text`, (n,), -0 with its sign.

    Raises Unfit, and errors of simdjson's.
    """
    if dtype in LEAST_INFINITE:
        values = np.frombuffer(array.as_buffer(of_type="d"))  # float64
        # What nearly all bodies need no function for: for small ones two calls are felt.
        if not np.vdot(values, values) < LEAST_INFINITE[dtype] and not stay_finite(values, dtype):
            raise Unfit
        numbers = values.astype(dtype)
        if MINUS in text and lost_a_sign(text, values):
            give_signs(numbers, text)
        return numbers
    kind = np.dtype(dtype).kind
    if kind not in _BUFFER_DTYPES:
        raise Unfit
    try:
        wide: NDArray[Any] = np.frombuffer(array.as_buffer(of_type=kind), _BUFFER_DTYPES[kind])
    except (TypeError, ValueError):  # some are written with a fraction
        wide = np.frombuffer(array.as_buffer(of_type="d"))
        if not np.array_equal(wide, np.trunc(wide)) or np.abs(wide).max() >= EXACT_IN_FLOAT:
            raise Unfit from None
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    if not (limits.min <= wide.min() and wide.max() <= limits.max):
        raise Unfit
    return wide.astype(dtype)  # a copy


def _check_nesting(instances: Any, first: Any, body: bytes, model: Model) -> None:
    """Raise Unfit unless each instance is a flat row, or each is nested as the model's shape.

    `as_buffer` flattens whatever it gets: [[1, 2, 3], [4, 5, 6, 7, 8]] is not two rows of 4,
    nor is [[1, [2, 3], 4]] one. So the length of each list is checked, and the opening
    brackets of the body are counted: they leave no room for a list that was not checked.
    """
    size = model.row_size
    if len(first) == size:
        lists = 1 + len(instances)
        fits = len(instances) == 1 or {size}.issuperset(map(len, instances))
    else:
        lists, fits = _nested(instances, (len(instances), *model.row_shape))
    if not fits or _opening_brackets(body) != lists:
        raise Unfit


def _check_open_nesting(instances: Any, first: Any, body: bytes, model: Model) -> tuple[int, ...]:
    """Return the shape of all instances, which are nested alike. Raises Unfit."""
    sizes: list[int] = []
    inner = first
    for size in model.row_dims:
        if size not in (-1, len(inner)):
            raise Unfit
        sizes.append(len(inner))
        inner = inner[0]
    lists, fits = _nested(instances, (len(instances), *sizes))
    if not fits or _opening_brackets(body) != lists:
        raise Unfit
    return tuple(sizes)


def _opening_brackets(body: bytes) -> int:
    """Return how many lists a JSON text begins, if no string in it holds a bracket."""
    if len(body) < 4_000:
        return body.count(b"[")
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")))  # faster then


def _nested(array: Any, shape: Sequence[int]) -> tuple[int, bool]:
    """Return how many lists `array` is made of, and whether they are nested as `shape`."""
    if len(array) != shape[0]:
        return 0, False
    if len(shape) == 1:
        return 1, True
    total = 1
    for inner in array:
        lists, fits = _nested(inner, shape[1:])
        if not fits:
            return 0, False
        total += lists
    return total, True


def _named_numbers(instances: Any, body: bytes, model: Model) -> NDArray[Any]:
    """Return objects of named features as one array (n * row_size,), in feature order."""
    names, dtype = model.column_names, model.row_dtype
    numbers: list[float] = []
    for instance in instances:
        if len(instance) != len(names):
            raise Unfit
        named = instance.as_dict()
        if len(named) != len(names):  # a name came twice
            raise Unfit
        numbers += [named[name] for name in names]
    if not names or dtype not in LEAST_INFINITE or not NUMBERS.issuperset(map(type, numbers)):
        raise Unfit
    values = np.array(numbers, np.float64)
    if not stay_finite(values, dtype) or (MINUS in body and lost_a_sign(body, values)):
        raise Unfit
    return values.astype(dtype)


def small_tensor(
    numbers: list[float], shape: Sequence[int], dtype: type[np.generic]
) -> NDArray[Any]:
    """Return few numbers as a tensor of floats. Raises Unfit, WrongCount."""
    if len(numbers) != math.prod(shape):
        raise WrongCount(len(numbers))
    if not are_finite_as(numbers, dtype):
        raise Unfit
    return np.array(numbers, dtype).reshape(shape)


def read_tensor(text: bytes, shape: Sequence[int], dtype: type[np.generic]) -> NDArray[Any]:
    """Return a JSON list of numbers, flat or nested as `shape`, as an array of it.

    Raises WrongCount for a flat list of another length; anything else means that the slow way is
    needed.
    """
    return _tensor(_parsers.parse(text), text, shape, dtype)


def read_elements(text: bytes, shape: Sequence[int], dtype: type[np.generic]) -> NDArray[Any]:
    """As `read_tensor`, for a list of n elements that have a shape: (n, *shape)."""
    document: Any = _parsers.parse(text)
    return _tensor(document, text, (len(document), *shape), dtype)


def _tensor(
    document: Any, text: bytes, shape: Sequence[int], dtype: type[np.generic]
) -> NDArray[Any]:
    if type(document) is not simdjson.Array:  # a string may hold a bracket
        raise Unfit
    brackets = _opening_brackets(text)
    lists, fits = 1, True
    if type(document[0]) is simdjson.Array:
        lists, fits = _nested(document, shape)
    elif brackets == 1 and len(document) != math.prod(shape):
        raise WrongCount(len(document))
    if not fits or brackets != lists:
        raise Unfit
    return _numbers(document, text, dtype).reshape(shape)
