"""JSON as Python objects, or a sentence that says where it is none.

A byte order mark before it is passed over (RFC 8259, section 8.1).
"""

import codecs
import json
import re
from typing import Any, TypeVar

import msgspec

from service.errors import InvalidInput
from service.formats.numbers import NOT_JSON, NotJson

TOO_DEEP = "expected JSON, got lists or objects nested too deeply"
TOO_MANY_DIGITS = "expected JSON, got a number of too many digits"
_BYTE = re.compile(r"\(byte (\d+)\)$")
_NOT_JSON = re.compile(rb"[^NI-]{0,2}(NaN|-?Infinity)")
_MINUS_ZERO = re.compile("-0(?![0-9.eE])")

T = TypeVar("T")


def parsed(text: bytes, where: str) -> Any:
    """Return what JSON says, as Python objects; -0 as a float. Raises InvalidInput."""
    try:
        document = text.decode("utf-8-sig")
        return decoder_for(document).decode(document)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: expected JSON in UTF-8, got byte {error.start} that is not"
        ) from error
    except RecursionError as error:
        raise InvalidInput(f"{where}: {TOO_DEEP}") from error
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where}: expected JSON, got: {error}") from error
    except ValueError as error:
        raise InvalidInput(f"{where}: {TOO_MANY_DIGITS}") from error


def decoder_for(text: str) -> json.JSONDecoder:
    """Return what decodes a text, and -0 to a float."""
    return _SIGNED if _MINUS_ZERO.search(text) else _PLAIN


def _signed(digits: str) -> float:
    """Return a whole number; -0 as a float, as an integer has no such sign."""
    return -0.0 if digits == "-0" else int(digits)


_PLAIN = json.JSONDecoder(parse_constant=NotJson)
_SIGNED = json.JSONDecoder(parse_int=_signed, parse_constant=NotJson)


def decoded(text: bytes | memoryview, decoder: msgspec.json.Decoder[T]) -> T:
    """Return what a decoder makes of JSON. Raises InvalidInput with the place that does not fit."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$")
        where = place.rstrip("`").lstrip(".") or "body"
        raise InvalidInput(f"{where}: {sentence[0].lower()}{sentence[1:]}") from error
    except RecursionError as error:
        raise InvalidInput(f"body: {TOO_DEEP}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput("body: expected JSON in UTF-8, got something else") from error
    except msgspec.DecodeError as error:
        if text[:3] == codecs.BOM_UTF8 and text[3:6] != codecs.BOM_UTF8:  # one at most
            return decoded(memoryview(text)[3:], decoder)
        if found := _NOT_JSON.match(text, max(0, _place(error) - 2)):
            got = f"{found[1].decode()}{NOT_JSON}"
            raise InvalidInput(f"body: expected JSON, got {got}") from error
        raise InvalidInput(f"body: expected JSON, got: {error}") from error


def _place(error: msgspec.DecodeError) -> int:
    """Return the byte that an error names, 0 if it names none."""
    found = _BYTE.search(str(error))
    return int(found[1]) if found else 0
