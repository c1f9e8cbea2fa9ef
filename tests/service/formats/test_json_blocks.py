"""Long lists in blocks: every list is read as the plain decoder reads it, or refused as it does."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import DeadlineExceeded, InvalidInput
from service.formats import json_blocks
from service.formats.json_blocks import parts

TEXTS = st.text(st.sampled_from('[]{},:"\\ aé-0'), max_size=6)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    NUMBERS | TEXTS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=20,
)
LISTS = (
    st.lists(VALUES, max_size=12)
    | st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=12)
    | st.lists(st.dictionaries(TEXTS, NUMBERS, max_size=3), max_size=12)
    | st.lists(TEXTS, max_size=30)
)
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " : "), ("\r\n,", ":")])


class Plain:
    """Reads flat lists of whole numbers fast, and takes everything else as it is."""

    def __init__(self) -> None:
        self.fast_blocks = 0
        self.large: list[int] = []

    def fast(self, block: bytes) -> NDArray[Any]:
        value = json.loads(block)
        if not all(type(each) is int and abs(each) < 2**62 for each in value):
            raise ValueError
        self.fast_blocks += 1
        return np.array(value, np.int64)

    def slow(self, value: Any, index: int) -> Any:
        return value

    def check_large(self, text: bytes, index: int) -> None:
        self.large.append(index)


def read(text: bytes, block: int = 16, elements: Plain | None = None) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_blocks, "BLOCK", block)
        values: list[Any] = []
        for part in parts(memoryview(text), elements or Plain(), "here", math.inf):
            values += part.tolist() if isinstance(part, np.ndarray) else part
        return values


@settings(max_examples=150, deadline=None)
@given(value=LISTS, spaces=SPACES, block=st.integers(1, 40))
def test_a_list_is_read_as_a_whole_would_be(
    value: list[Any], spaces: tuple[str, str], block: int
) -> None:
    text = json.dumps(value, separators=spaces, ensure_ascii=False).encode()
    assert read(text, block) == json.loads(text)


@settings(max_examples=150, deadline=None)
@given(value=LISTS, data=st.data(), block=st.integers(1, 40))
def test_a_damaged_list_is_refused_just_where_a_whole_would_be(
    value: list[Any], data: st.DataObject, block: int
) -> None:
    text = json.dumps(value, ensure_ascii=False)
    place = data.draw(st.integers(1, len(text) - 1))
    more = data.draw(st.sampled_from(["", ",", "[", "]", '"', "{", "}", "0", "\x0b"]))
    damaged = text[:place] + more + text[place + data.draw(st.integers(0, 1)) :]
    if not damaged.endswith("]") or len(damaged) < 2:
        return
    try:
        expected = json.loads(damaged)
    except json.JSONDecodeError:
        with pytest.raises(InvalidInput, match=r"^here: expected JSON, got"):
            read(damaged.encode(), block)
        return
    assert read(damaged.encode(), block) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1,2,]", "here: expected JSON, got: Expecting value: byte 5 of it"),
        ("[1 2]", "here: expected JSON, got: Expecting ',' delimiter: byte 3 of it"),
        ("[[1],[2}]", "here: expected JSON, got: Expecting ',' delimiter: byte 7 of it"),
        ('["é",x]', "here: expected JSON, got: Expecting value: byte 6 of it"),
        (f"[1,{'1' * 5000}]", "here: expected JSON, got a number of too many digits"),
        (f"[{'[' * 100_000}]", "here: expected JSON, got lists or objects nested too deeply"),
    ],
)
def test_the_error_says_the_place(text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        read(text.encode(), block=2)
    assert str(raised.value) == sentence


def test_text_that_is_not_utf8_is_refused_with_its_place() -> None:
    with pytest.raises(
        InvalidInput, match=r"^here: expected JSON in UTF-8, got byte 6 that is not"
    ):
        read(b'[1,2,"\xff"]', block=2)


def test_blocks_are_of_several_elements() -> None:
    elements = Plain()
    assert read(json.dumps([*range(10_000)]).encode(), 1000, elements) == [*range(10_000)]
    assert 50 < elements.fast_blocks < 80


def test_only_elements_that_are_large_are_looked_at_before() -> None:
    for size, large in ((10, []), (100, [2])):
        elements = Plain()
        text = json.dumps([[0], [1], [*range(size)], [2]]).encode()
        assert len(read(text, 16, elements)) == 4
        assert elements.large == large


def test_the_deadline_ends_it() -> None:
    with pytest.raises(DeadlineExceeded):
        next(parts(b"[1]", Plain(), "here", 0.0))
