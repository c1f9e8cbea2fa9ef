"""Each kind of failure has a code, as it has a status of HTTP."""

from urllib.parse import unquote_to_bytes

import pytest

from service import errors
from service.grpc.status import CODES, LONGEST, Code, in_header
from service.http.status import STATUS


def test_every_kind_of_refusal_has_a_code_and_nothing_else_has() -> None:
    assert set(CODES) == set(STATUS) - {errors.HeadTooLarge}


def test_the_codes_are_those_of_the_statuses() -> None:
    """But for those that say more: bytes in the queue are a resource, and methods are none."""
    expected = {
        400: Code.INVALID_ARGUMENT,
        401: Code.UNAUTHENTICATED,
        404: Code.NOT_FOUND,
        405: Code.UNIMPLEMENTED,
        408: Code.DEADLINE_EXCEEDED,
        413: Code.RESOURCE_EXHAUSTED,
        415: Code.INVALID_ARGUMENT,
        431: Code.RESOURCE_EXHAUSTED,
        500: Code.INTERNAL,
        501: Code.UNIMPLEMENTED,
        503: Code.UNAVAILABLE,
        504: Code.DEADLINE_EXCEEDED,
    }
    others = {
        errors.MemoryFull: Code.RESOURCE_EXHAUSTED,
        errors.UnsupportedEncoding: Code.UNIMPLEMENTED,  # PROTOCOL-HTTP2.md, "Requests"
    }
    for kind, code in CODES.items():
        assert code == others.get(kind, expected[STATUS[kind]]), kind


@pytest.mark.parametrize("sentence", ["100 % of it", "Grüße, 東京", "two\nlines", "\ud800"])
def test_a_sentence_is_printable_ascii_and_comes_back(sentence: str) -> None:
    written = in_header(sentence)
    assert all(0x20 <= byte < 0x7F for byte in written)
    assert unquote_to_bytes(written) == sentence.encode("utf-8", "backslashreplace")


def test_a_long_sentence_is_cut_between_characters() -> None:
    read = unquote_to_bytes(in_header("a" + "ü" * LONGEST)).decode()
    assert len(read.encode()) in (LONGEST, LONGEST - 1)
