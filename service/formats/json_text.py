"""JSON as Python objects, or a sentence that says where it is none."""

import json
from typing import Any, TypeVar

import msgspec

from service.errors import InvalidInput
from service.formats.numbers import MINUS, MINUS_ZERO

_TOO_DEEP = "expected JSON, got lists or objects nested too deeply"

T = TypeVar("T")


def parsed(text: bytes, where: str) -> Any:
    """Return what JSON says, as Python objects; -0 as a float. Raises InvalidInput."""
    has_minus_zero = MINUS in text and MINUS_ZERO.search(text)
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
