from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from training import housing
from training.comparison import classical
from training.data import read
from training.loop import answers, make_deterministic
from training.recipe import learnt
from training.rows import Rows, parse_csv, split


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
    assert torch.unique(together[:, 3]).tolist() == [0, 1]  # chas
    assert (together[:, -1].min().item(), together[:, -1].max().item()) == (5, 50)  # medv


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


def test_other_splits_are_20_of_400_and_106(real_data: Path) -> None:
    splits = housing.splits()
    assert len(splits) == 20
    every = sorted(housing.tracts().inputs.tolist())
    for train, held_out in splits:
        assert (len(train.inputs), len(held_out.inputs)) == (400, 106)
        assert sorted(torch.cat([train.inputs, held_out.inputs]).tolist()) == every
    errors = [classical(LinearRegression(), *split) for split in splits]
    assert np.mean(errors) == pytest.approx(4.570, abs=0.001)  # measured apart from this code


@pytest.fixture(scope="module")
def tracts() -> Rows:
    """200 tracts made up: the price falls with lstat and rises with rm."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.rand(200, 13, generator=random) * 10 + 1
    inputs[:, 3] = (inputs[:, 3] > 6).float()  # chas
    noise = torch.randn(200, generator=random) * 0.1
    prices = torch.exp(3 + 0.1 * inputs[:, 5] - 0.1 * inputs[:, 12] + noise)
    return Rows(inputs=inputs, targets=prices[:, None])


@pytest.fixture(scope="module")
def network(tracts: Rows) -> torch.nn.Sequential:
    parameters = msgspec.structs.replace(housing.PARAMETERS, epochs=20)
    network, history = learnt(housing.RECIPE, parameters, tracts, held_out=tracts)
    assert history.held_out[-1] < history.held_out[0]
    return network


def test_columns_are_logarithms_and_four_more() -> None:
    row = [0.1, 20, 3, 1, 0.5, 6, 70, 4, 5, 300, 15, 396.9, 7]
    (got,) = housing.columns(torch.tensor([row])).tolist()
    expected = row.copy()
    for place in (0, 4, 7, 8, 12):  # crim, nox, dis, rad, lstat
        expected[place] = np.log(row[place])
    expected[1], expected[11] = np.log(21), np.log(400 - 396.9)
    assert got == pytest.approx([*expected, 36, 7, 0.1, 4], rel=1e-4)


def test_what_has_no_logarithm_is_answered_all_the_same(network: torch.nn.Sequential) -> None:
    for row in (torch.zeros(1, 13), torch.full((1, 13), -5.0), torch.full((1, 13), 1e6)):
        for part in answers(network, row):
            assert part.isfinite().all()


def test_ramps_rise_over_their_bin_and_stay(tracts: Rows) -> None:
    """Against numpy.interp, column by column."""
    expand = housing.Expand(tracts)
    values = housing.columns(tracts.inputs)
    ramps = expand(tracts.inputs)[:, values.shape[1] :] + expand.middle
    assert ramps.shape[1] == 12 * housing.BINS  # chas has two values and no bins
    for number, (column, start, width) in enumerate(
        zip(expand.column.tolist(), expand.start.tolist(), expand.width.tolist(), strict=True)
    ):
        expected = np.interp(values[:, column], [start, start + width], [0, 1])
        np.testing.assert_allclose(ramps[:, number], expected, atol=1e-4)
    first = values[:, 0]
    borders = expand.start[expand.column == 0]
    shares = [(first < border).float().mean().item() for border in borders]
    assert shares == pytest.approx([number / 8 for number in range(8)], abs=0.01)


def test_each_row_is_unseen_by_two_members() -> None:
    make_deterministic(0)
    unseen = housing.draw_parts(400)
    assert unseen.sum(dim=0).tolist() == [2] * 400
    assert unseen.sum(dim=1).tolist() == [40] * 20


def test_members_are_dealt_the_rows_they_may_see_each_once() -> None:
    make_deterministic(0)
    unseen = housing.draw_parts(20)
    rows = Rows(inputs=torch.arange(20.0)[:, None], targets=torch.arange(20.0)[:, None] * 2)
    dealt = housing.deal(rows, unseen)
    assert dealt.inputs.shape == (18, 20, 1)
    assert torch.equal(dealt.targets, dealt.inputs[:, :, 0] * 2)
    for member, without in enumerate(unseen):
        seen = sorted(dealt.inputs[:, member, 0].tolist())
        assert seen == torch.arange(20.0)[~without].tolist()
    assert not torch.equal(dealt.inputs[:, 0], dealt.inputs[:, 10])


def test_loss_is_the_huber_loss_of_each_member() -> None:
    said, targets = torch.randn(4, 9, 1) * 2, torch.randn(9, 4)
    errors = np.abs(said[:, :, 0].numpy() - targets.T.numpy())
    expected = np.where(errors < 0.5, errors**2 / 2, 0.5 * (errors - 0.25)).mean(axis=1)
    np.testing.assert_allclose(housing.huber(said, targets), expected, rtol=1e-5)


def test_price_is_the_geometric_mean_and_its_interval_widens_with_the_members(
    tracts: Rows,
) -> None:
    price = housing.Price(tracts)
    price.reach, price.floor = torch.tensor(2.0), torch.tensor(0.5)
    logs = np.log(tracts.targets.numpy())
    said = torch.tensor([[[-1.0], [0.0]], [[-1.0], [0.4]], [[-1.0], [-0.4]]])  # (3, 2, 1)
    value, interval = price(said)
    middle = np.exp(logs.mean() + logs.std(ddof=1) * np.array([[-1.0], [0.0]]))
    np.testing.assert_allclose(value, middle, rtol=1e-5)
    half = 2 * np.sqrt(0.5 + np.array([[0.0], [0.16]]))  # the variance of 0, 0.4 and -0.4
    factor = np.exp(logs.std(ddof=1) * half)
    expected = np.stack([middle / factor, middle * factor], axis=2)
    np.testing.assert_allclose(
        interval, np.minimum(expected, tracts.targets.max().item()), rtol=1e-5
    )


def test_no_price_is_above_the_dearest(tracts: Rows) -> None:
    value, interval = housing.Price(tracts)(torch.full((20, 1, 1), 99.0))
    assert value.item() == interval[0, 0, 1].item() == tracts.targets.max().item()


def test_calibrated_intervals_hold_nine_tenths_of_unseen_truths(tracts: Rows) -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(2000, generator=random) * 0.5
    said = torch.randn(10, 2000, generator=random) * 0.3
    unseen = torch.zeros(10, 2000)
    unseen[:2] = 1
    said[2:] += truth  # those who have seen it must not make it seem easy
    price = housing.Price(tracts)
    housing.calibrate(price, said, unseen, truth)
    middle, variance = said[:2].mean(dim=0), said[:2].var(dim=0)
    half = price.reach * (price.floor + variance).sqrt()
    inside = ((truth - middle).abs() <= half * 1.00001).double().mean()
    assert 0.9 <= inside <= 0.902


def test_interval_is_around_the_value(tracts: Rows, network: torch.nn.Sequential) -> None:
    value, interval = answers(network, tracts.inputs)
    assert (value.shape, interval.shape) == ((200, 1), (200, 1, 2))
    lower, upper = interval.unbind(dim=2)
    assert (lower < value).all()
    assert (value <= upper).all()
