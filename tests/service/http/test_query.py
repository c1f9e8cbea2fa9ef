"""The query of a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.http.query import NO_QUERY, Query, query_of
from service.http.request import Request

WHOLE_NUMBER = "expected a whole number from 1 to 9223372036854775807"


def said(query: bytes) -> Query:
    scope: Any = {"type": "http", "query_string": query}
    unused: Any = None
    return query_of(Request(scope, {}, unused, b"7", {}, unused, unused))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", NO_QUERY),
        (b"version=1", Query(version=1)),
        (b"version=1732700000123456789", Query(version=1_732_700_000_123_456_789)),
        (b"version=007", Query(version=7)),
        (b"version=0", Query(version=0)),  # which no model has, as the catalog says
        (b"prepare=auto", NO_QUERY),
        (b"prepare=false", Query(prepare=False)),
        (b"prepare=false&version=2", Query(version=2, prepare=False)),
        (b"%76ersion=%31", Query(version=1)),
        (b"key=abc&utm=1&x", NO_QUERY),  # a gateway's
        (b"api-version=2024-10-21&session=7&region=eu&version=2", Query(version=2)),
        (b"&&", NO_QUERY),
        (b"a&" * 64 + b"verison=1", NO_QUERY),  # so many are compared with ours
    ],
)
def test_a_query_says_version_and_preparation(query: bytes, expected: Query) -> None:
    assert said(query) == expected


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (b"version=", f'version: {WHOLE_NUMBER}, got ""'),
        (b"version=x", f'version: {WHOLE_NUMBER}, got "x"'),
        (b"version=-1", f'version: {WHOLE_NUMBER}, got "-1"'),
        (b"version=1.0", f'version: {WHOLE_NUMBER}, got "1.0"'),
        (b"version=%C2%B2", f"version: {WHOLE_NUMBER}, got"),
        (b"version=99999999999999999999", f"version: {WHOLE_NUMBER}, got"),
        (b"version=00000000000000000001", f"version: {WHOLE_NUMBER}, without zeros in front, got"),
        (b"version=1&version=1", "query: version: expected it once, got it again"),
        (b"prepare=true", 'prepare: expected auto or false, got "true"'),
        (b"prepare", 'prepare: expected auto or false, got ""'),
        (b"prepar=false", 'query: "prepar": unknown parameter; did you mean prepare?'),
        (b"VERSION=1", 'query: "VERSION": unknown parameter; did you mean version?'),
        (b"Version=1", 'query: "Version": unknown parameter; did you mean version?'),
        (b"version=" + b"9" * 5000, f"version: {WHOLE_NUMBER}, got"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(query: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        said(query)
    assert str(raised.value).startswith(sentence)
    assert len(str(raised.value)) < 150


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    try:
        said(query)
    except InvalidInput as error:
        assert str(error)  # noqa: PT017 (either may be)


@pytest.mark.parametrize(
    ("query", "in_body", "version"),
    [
        (b"", None, None),
        (b"", 3, 3),
        (b"version=3", None, 3),
        (b"version=3", 3, 3),
        (b"", "x", "x"),
    ],
)
def test_the_version_may_stand_in_the_body_too(query: bytes, in_body: Any, version: Any) -> None:
    assert said(query).version_beside(in_body) == version


@pytest.mark.parametrize("in_body", [2, "3", 3.5])
def test_body_and_query_do_not_say_two_versions(in_body: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^version: expected 3 as in the query, got"):
        said(b"version=3").version_beside(in_body)
