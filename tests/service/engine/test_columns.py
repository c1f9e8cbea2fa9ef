from typing import Any

import numpy as np
import pytest

from service.engine.columns import Column, are_joined, form_of, why_no_columns
from service.engine.spec import Spec, Tensor
from tests.support.toys import toy_card

AGE = Tensor("age", np.float32, (-1, 1))
SEX = Tensor("sex", np.object_, (-1, 1))
ROOMS = Tensor("rooms", np.int64, (-1,))
WIDE = Tensor("wide", np.float32, (-1, 4))


def spec(*inputs: Tensor) -> Spec:
    return Spec([*inputs], [], [])


def test_an_input_for_each_column_is_filled_from_one_array() -> None:
    form = form_of(spec(AGE, SEX, ROOMS), None, ())
    assert (form.dtype, form.dims) == (np.object_, (3,))
    assert [each.name for each in form.columns] == ["age", "sex", "rooms"]
    rows = form.rows_of([[1.5, "x", 2], [2, "", 2**53 + 1]])
    age, sex, rooms = form.inputs_of(rows)
    assert (age.dtype, age.tolist()) == (np.float32, [[1.5], [2]])
    assert (sex.dtype, sex.tolist()) == (np.object_, [["x"], [""]])
    assert (rooms.dtype, rooms.tolist()) == (np.int64, [2, 2**53 + 1])


def test_columns_of_one_type_are_rows_of_it() -> None:
    other = Tensor("other", np.float32, (-1,))
    form = form_of(spec(AGE, other), None, ["other"])
    assert (form.dtype, form.takes_missing) == (np.float32, False)
    assert form.columns == [Column("age", np.float32), Column("other", np.float32, True)]
    left, right = form.inputs_of(form.rows_of([[1, 2], [3, 4]]))
    assert (left.tolist(), right.tolist()) == ([[1], [3]], [2, 4])
    assert left.flags.c_contiguous


def test_the_values_of_a_wide_input_have_names_by_a_card_alone() -> None:
    assert form_of(spec(WIDE), None, ()).columns == []
    form = form_of(spec(WIDE), toy_card(), ["wide"])
    assert form.columns == [Column(name, np.float32, True) for name in "abcd"]
    assert form.takes_missing
    rows = form.rows_of([[1, 2, 3, 4]])
    assert form.inputs_of(rows) == [rows]


def test_one_value_of_a_row_has_the_name_of_its_input() -> None:
    form = form_of(spec(ROOMS), None, ())
    assert form.columns == [Column("rooms", np.int64)]
    assert form.rows_of([[1], [2]]).tolist() == [1, 2]


@pytest.mark.parametrize("inputs", [(AGE,), (AGE, SEX, ROOMS)])
def test_inputs_of_one_value_are_columns(inputs: tuple[Tensor, ...]) -> None:
    assert why_no_columns(inputs) == ""


@pytest.mark.parametrize(
    "other", [WIDE, Tensor("wide", np.float32, ()), Tensor("wide", np.float32, (-1, -1))]
)
def test_other_inputs_are_none(other: Tensor) -> None:
    why = "it has 2 inputs, and wide holds more than one value of a row"
    assert why_no_columns([AGE, other]) == why


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([np.ones((2, 3)), np.ones((2, 3))], (2, 2, 3)),
        ([np.ones((2, 3)), np.ones((2, 4))], (2,)),
        ([np.ones((2, 3))], (1, 2, 3)),
        (np.ones((5, 2, 3)), (5, 2, 3)),
    ],
)
def test_rows_of_an_open_shape_are_joined_where_they_can_be(
    values: Any, shape: tuple[int, ...]
) -> None:
    form = form_of(spec(Tensor("x", np.float32, (-1, 2, -1))), None, ())
    rows = form.rows_of(values)
    assert (form.is_open, rows.shape) == (True, shape)
    assert are_joined(rows, form) == (len(shape) == 3)
    assert {each.dtype for each in rows} == {np.dtype(np.float32)}
