import math
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidInput
from service.formats.values import fitting, in_words


@pytest.mark.parametrize(
    ("value", "dtype"),
    [("", np.object_), ("é", np.object_), (True, np.bool_), (1, np.int8), (1.5, np.float32)],
)
def test_what_fits_a_type_is_taken_as_it_is(value: Any, dtype: type[np.generic]) -> None:
    assert fitting(value, "here", dtype) is value


@pytest.mark.parametrize(
    ("value", "dtype", "sentence"),
    [
        (1, np.object_, "here: expected a string, got 1"),
        (None, np.object_, "here: expected a string, got null"),
        ("\ud800", np.object_, "here: expected a string that has a form in UTF-8"),
        (1, np.bool_, "here: expected true or false, got 1"),
        (True, np.int8, "here: expected a number, got true"),
        ("1", np.float32, 'here: expected a number, got "1"'),
        (None, np.int8, "here: expected a number, got null"),
    ],
)
@pytest.mark.parametrize("takes_missing", [False, True])
def test_what_is_of_another_type_is_refused(
    value: Any, dtype: type[np.generic], sentence: str, takes_missing: bool
) -> None:
    with pytest.raises(InvalidInput) as raised:
        fitting(value, "here", dtype, takes_missing=takes_missing)
    assert str(raised.value) == sentence


def test_a_missing_number_is_nan_where_that_is_taken() -> None:
    assert math.isnan(fitting(None, "here", np.float16, takes_missing=True))
    assert math.isnan(fitting(math.nan, "here", np.float16, takes_missing=True))
    with pytest.raises(InvalidInput, match="got null: the model takes no missing values, unless"):
        fitting(None, "here", np.float16)


def test_types_have_words() -> None:
    kinds = (np.object_, np.bool_, np.int8, np.float32)
    assert [*map(in_words, kinds)] == ["a string", "true or false", "a number", "a number"]
