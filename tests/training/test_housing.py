from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from training import housing
from training.data import Rows, parse_csv, read, split


def test_400_tracts_to_train_on_and_106_held_out(real_data: Path) -> None:
    train, held_out = housing.load()
    assert (train.inputs.shape, train.targets.shape) == ((400, 13), (400, 1))
    assert (held_out.inputs.shape, held_out.targets.shape) == ((106, 13), (106, 1))


def test_columns_are_where_their_names_say(real_data: Path) -> None:
    train, held_out = housing.load()
    together = torch.cat(
        [torch.cat([part.inputs, part.targets], dim=1) for part in (train, held_out)]
    )
    first = [0.00632, 18, 2.31, 0, 0.538, 6.575, 65.2, 4.09, 1, 296, 15.3, 396.9, 4.98, 24]
    assert any(np.allclose(row, first) for row in together)
    assert together[:, 3].unique().tolist() == [0, 1]  # chas
    assert (together[:, -1].min(), together[:, -1].max()) == (5, 50)  # medv


def test_split_is_of_median_difficulty_for_linear_regression(real_data: Path) -> None:
    columns = [name for name, _, _ in housing.FEATURES]
    table = parse_csv(read(housing.FILE), [*columns, "medv"], "housing")
    rows = Rows(inputs=table[:, :-1], targets=table[:, -1:])
    errors = {}
    for seed in range(101):
        train, held_out = split(rows, housing.TRAIN_ROWS, seed)
        line = LinearRegression().fit(train.inputs, train.targets)
        squares = (line.predict(held_out.inputs) - held_out.targets.numpy()) ** 2
        errors[seed] = np.sqrt(squares.mean())
    assert errors[housing.SPLIT_SEED] == np.median(list(errors.values()))
    assert errors[housing.SPLIT_SEED] == pytest.approx(4.81, abs=0.01)
    assert (min(errors.values()), max(errors.values())) == pytest.approx((3.71, 6.60), abs=0.01)


def test_typical_houses_are_the_median_of_each_column() -> None:
    prices = torch.arange(1.0, 10.0)[:, None]  # 1 to 9: the quartiles are 3 and 7
    rows = Rows(inputs=torch.cat([prices * 2, -prices], dim=1), targets=prices)
    assert {name: row.tolist() for name, row in housing.typical_houses(rows).items()} == {
        "median house": [10, -5],
        "median of the cheapest quarter": [4, -2],  # of 1, 2 and 3
        "median of the dearest quarter": [16, -8],  # of 7, 8 and 9
    }
