"""Each kind of failure has a status, and HTTP's headers where it needs some."""

import re
from collections.abc import Iterator

import pytest

from service import errors
from service.errors import RequestError
from service.http.status import STATUS, headers_of


def kinds(of: type[RequestError]) -> Iterator[type[RequestError]]:
    """Yield every kind below one."""
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_kind_of_refusal_has_a_status_and_nothing_else_has() -> None:
    assert set(STATUS) == set(kinds(RequestError))
    assert all(400 <= status < 600 for status in STATUS.values())


def test_kinds_of_one_kind_are_of_one_class_of_status() -> None:
    """A caller that only looks at the first digit is not misled: 4 is its own mistake."""
    ours = {errors.InferenceFailed, errors.NotSupported, errors.Unavailable}
    for kind, status in STATUS.items():
        is_ours = any(issubclass(kind, each) for each in (*ours, errors.DeadlineExceeded))
        assert (status >= 500) == is_ours, kind


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (errors.Unauthorized, b"www-authenticate"),  # RFC 9110, section 11.6.1
        (errors.MethodNotAllowed, b"allow"),  # section 15.5.6
        (errors.UnsupportedEncoding, b"accept-encoding"),  # section 12.5.3
        (errors.Unavailable, b"retry-after"),  # section 10.2.3
        (errors.QueueFull, b"retry-after"),
        (errors.TooManyConnections, b"retry-after"),
        (errors.TooManyConnections, b"connection"),
    ],
)
def test_a_failure_has_the_headers_that_its_status_asks_for(
    kind: type[RequestError], name: bytes
) -> None:
    assert name in dict(headers_of(kind("no")))


def test_others_have_none() -> None:
    assert headers_of(errors.InvalidInput("no")) == []


def test_whatever_may_be_tried_again_says_when() -> None:
    for kind, status in STATUS.items():
        assert (b"retry-after" in dict(headers_of(kind("no")))) == (status == 503), kind


def test_headers_hold_no_line_break() -> None:
    """The server sends them as they are."""
    for kind in STATUS:
        for name, value in headers_of(kind("no\r\nset-cookie: a")):
            assert re.fullmatch(rb"[a-z-]+", name)
            assert re.fullmatch(rb"[ -~]+", value)
