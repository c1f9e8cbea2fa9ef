"""What a caller would rather have (RFC 9110, sections 12.4.2 and 12.5.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.preferences import LONGEST, Preferences

NAMES = ("application/json", "text/csv", "application/jsonlines")


@pytest.mark.parametrize(
    ("header", "name", "quality"),
    [
        (b"text/csv", "text/csv", 1.0),
        (b"Text/CSV ; charset=utf-8 ; Q=0.25", "text/csv", 0.25),
        (b"text/csv;q=0.25;version=1", "text/csv", 0.25),
        (b"text/csv;q=.25", "text/csv", 0.25),  # as Java writes it
        (b"text/csv;q=0", "text/csv", 0.0),
        (b"text/csv;q=0.", "text/csv", 0.0),
        (b"text/csv;q=0.000, */*", "text/csv", 0.0),
        (b"text/*;q=0.5, */*;q=0.1", "text/csv", 0.5),
        (b"text/*;q=0.5, */*;q=0.1", "image/png", 0.1),
        (b"*;q=0.3", "gzip", 0.3),
        (b"text/csv;q=1.5", "text/csv", 1.0),  # no quality is larger
        (b"text/csv;q=0.1234", "text/csv", 1.0),  # nor has one more digits
        (b"text/csv;q=", "text/csv", 1.0),
        (b"", "text/csv", 0.0),
        (b"image/png", "text/csv", 0.0),
    ],
)
def test_a_quality_is_read(header: bytes, name: str, quality: float) -> None:
    assert Preferences(header).of(name) == quality


@pytest.mark.parametrize(
    ("header", "best"),
    [
        (b"", None),
        (b"image/png", None),
        (b"text/csv;q=0, application/json;q=0", None),
        (b"*/*", "application/json"),
        (b"text/*, application/*", "application/json"),
        (b"*/*, text/csv", "text/csv"),
        (b"application/jsonlines, text/csv", "application/jsonlines"),
        (b"application/jsonlines;q=0.2, text/csv;q=0.3", "text/csv"),
        (b"application/json;q=0, */*;q=0.1", "text/csv"),
    ],
)
def test_the_best_is_what_is_wanted_most(header: bytes, best: str | None) -> None:
    assert Preferences(header).best(NAMES) == best


def test_what_is_not_named_is_not_refused() -> None:
    preferences = Preferences(b"text/csv;q=0, application/*;q=0, application/json;q=0.5")
    assert [preferences.refuses(name) for name in NAMES] == [False, True, True]
    assert not preferences.refuses("image/png")


def test_of_a_long_header_only_complete_entries_are_read() -> None:
    cut = b"a/b," * (LONGEST // 4 - 2) + b"text/csv;q=0.99, x"
    assert len(cut) > LONGEST
    assert Preferences(cut).of("text/csv") == 0.0
    assert Preferences(b"text/csv;q=0.5," + cut).of("text/csv") == 0.5
    assert Preferences(b"t" * 100_000).best(NAMES) is None


@given(header=st.binary(max_size=60) | st.text(",;q=0.1*/ acsvtexplionj", max_size=60))
def test_any_header_is_read(header: bytes | str) -> None:
    content = header if isinstance(header, bytes) else header.encode()
    assert Preferences(content).best(NAMES) in (None, *NAMES)
