import numpy as np
import pytest

from service.batching.arrays import check_rows, have_rows, joined, split, stacked
from service.errors import InferenceFailed


def test_what_is_joined_can_be_split_again() -> None:
    parts = [[np.full((n, 2), n), np.arange(n)] for n in (1, 3, 2)]
    whole = joined(parts)
    assert [each.shape for each in whole] == [(6, 2), (6,)]
    for back, part in zip(split(whole, [1, 3, 2]), parts, strict=True):
        for got, given in zip(back, part, strict=True):
            np.testing.assert_array_equal(got, given)


def test_the_arrays_of_one_call_are_not_copied() -> None:
    part = [np.arange(3)]
    assert joined([part]) is part


def test_what_does_not_fit_together_is_not_joined() -> None:
    with pytest.raises(ValueError, match="dimension"):
        joined([[np.zeros((1, 2))], [np.zeros((1, 3))]])
    with pytest.raises(ValueError, match="zip"):
        joined([[np.zeros(1)], [np.zeros(1), np.zeros(1)]])


def test_each_output_is_to_have_an_answer_for_each_row() -> None:
    good, short, none = np.zeros((2, 3)), np.zeros((1, 3)), np.float32(1)
    assert have_rows([good, np.zeros(2)], 2)
    check_rows([good, np.zeros(2)], 2)
    for bad in (short, none):
        assert not have_rows([good, bad], 2)
        with pytest.raises(InferenceFailed, match=r"^the model did not answer with one row for"):
            check_rows([good, bad], 2)


def test_outputs_of_single_rows_are_stacked() -> None:
    parts = [[np.ones((1, 2)), np.ones((1, 3))], [np.zeros((1, 2)), np.zeros((1, 2))]]
    alike, others = stacked(parts)
    assert alike.tolist() == [[1, 1], [0, 0]]
    assert (others.shape, others.tolist()) == ((2,), [[1, 1, 1], [0, 0]])
