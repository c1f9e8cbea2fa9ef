"""Housing: the median price of the houses in a Boston census tract of 1970, in 1000 USD.

    python -m training housing

RMSE 2.43, MAE 1.90 (thousand dollars) on the 106 held-out tracts; 5 s on one core. One split says
little where rows are few: in the mean of 20 random splits the RMSE is 2.70, and gradient boosting
has 3.08, tuned 2.91, a random forest 3.27, linear regression 4.57 (python -m training evaluate
housing). The choices below were made on these splits; on 20 that no choice has seen it is 2.73, and
tuned gradient boosting has 2.98.

Each price comes with an interval that is to hold the true price nine times of ten. It holds 92.5 %
in the mean of the 20 splits (87 % to 96 %), and 90.5 % in that of the unseen ones (82 % to 97 %).
"""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from service.card import Dataset, Interval, Target
from training.data import File, read
from training.export import Floor
from training.hyperparameters import Hyperparameters
from training.loop import History, Watch, fit
from training.network import Ensemble, Standardize, sequence
from training.recipe import Classical, Recipe
from training.rows import Rows, parse_csv, split

TRAIN_ROWS = 400  # of 506; the other 106 are held out
# Which rows those are decides the result more than the network does: linear regression errs by
# 3.71 to 6.60 over the seeds 0 to 100. This is the seed of its median, 4.81: neither a lucky
# split nor one chosen by the network's result. It is not --seed, which changes no split.
SPLIT_SEED = 71
SPLITS = 20  # that `evaluate` trains on

# Figures: mean RMSE on the held-out rows of those splits.
PARAMETERS = Hyperparameters(
    hidden=(64, 64),  # one layer of 128 gave 0.06 more
    epochs=100,  # 800 steps; half as many gave 0.03 more
    batch_size=45,  # of the 360 rows that each member learns from
    learning_rate=0.01,
    weight_decay=0.05,  # 1.0 gave 0.1 more
    seed=0,
    dropout=0.1,  # 0.3 gave 0.1 more
)
HUBER_DELTA = 0.5  # where the loss turns from square to straight; all square gave 0.05 more
MEMBERS = 20  # networks side by side; 10 gave 2.69 to 2.72, one alone 2.9
PARTS = 10  # of the training rows; each member leaves one out, so 2 members have not seen a row
COVERAGE = 0.9  # share of the true prices that the intervals are to hold
# What is tried for the least variance in an interval, in means of the members' variance.
FLOORS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 1000.0)
SMALLEST = 1e-3  # of which a logarithm is taken: a caller may send 0
FARTHEST = 4.0  # standard deviations that a column may be from its mean
BINS = 8  # of each column; without them 0.15 more, with 16 the same
THINNEST = 0.02  # standard deviations that a bin is wide, so that rounding does not show

FILE = File(
    path="housing/BostonHousing.csv",
    sha256="ab16ba38fbbbbcc69fe930aab1293104f1442c8279c130d9eba03dd864bef675",
    urls=("https://raw.githubusercontent.com/selva86/datasets/master/BostonHousing.csv",),
)
FEATURES = [
    ("crim", "rate", "per capita crime rate of the town; StatLib does not say per what"),
    ("zn", "%", "share of the town's residential land zoned for lots over 25,000 square feet"),
    ("indus", "%", "share of the town's land that is business other than retail"),
    ("chas", "0 or 1", "1 if the tract borders the Charles River"),
    ("nox", "parts per 10 million", "nitrogen oxides in the air, the mean of a year"),
    ("rm", "rooms", "mean number of rooms of a home"),
    ("age", "%", "share of the owner-occupied homes built before 1940"),
    ("dis", "weighted distance", "to five employment centres of the Boston region"),
    ("rad", "index", "access to the radial highways, from 1 to 24"),
    ("tax", "USD per 10,000 USD", "property tax rate of the town on the full value"),
    ("ptratio", "pupils per teacher", "in the schools of the town"),
    ("b", "1000 (Bk - 0.63)^2", "Bk is the share of Black residents in the town: see the caveats"),
    (
        "lstat",
        "%",
        "'lower status': mean share of adults who did not reach high school and of "
        "male workers classed as labourers",
    ),
]
TARGET = Target(
    name="medv",
    unit="1000 USD",
    description="median value of the owner-occupied homes in the tract",
)
# What the network works with: (feature, factor, offset, function), the function of factor * feature
# + offset: a logarithm of what spans decades, and four more to bend lines.
LOGARITHMS = ("crim", "zn", "nox", "dis", "rad", "b", "lstat")
BENDS = (("rm", "square"), ("lstat", ""), ("crim", ""), ("dis", ""))
MOVED = {"zn": (1.0, 1.0), "b": (-1.0, 400.0)}  # 396.9 is the most that b can be
COLUMNS = [
    *(
        (name, *MOVED.get(name, (1.0, 0.0)), "log" * (name in LOGARITHMS))
        for name, _, _ in FEATURES
    ),
    *((name, 1.0, 0.0, function) for name, function in BENDS),
]
DATASET = Dataset(
    name="Boston housing",
    source="https://raw.githubusercontent.com/selva86/datasets/master/BostonHousing.csv, from "
    "StatLib (Carnegie Mellon University); D. Harrison and D. L. Rubinfeld, 'Hedonic prices and "
    "the demand for clean air', Journal of Environmental Economics and Management 5 (1978)",
    sha256=FILE.sha256,
    licence="none stated by its authors or by StatLib",
    caveats=[
        "Column b encodes the share of Black residents of a town. The study assumed that buyers "
        "pay less where some neighbours are Black and more where most are, because of "
        "discrimination, and built that into the formula; the share itself cannot be recovered "
        "from it. scikit-learn removed the data set for this reason. It is here only because it "
        "is a well-known benchmark: price no home and judge nobody by it.",
        "Prices are those of 1970, and those above 50,000 USD are recorded as 50,000.",
        "A row is a census tract of many homes, not one home.",
    ],
)


def tracts() -> Rows:
    """Return all 506 tracts.

    inputs: float32 (506, 13), in the units of FEATURES. targets: float32 (506, 1), 1000 USD.
    Raises DataError.
    """
    columns = [name for name, _, _ in FEATURES]
    table = parse_csv(read(FILE), [*columns, TARGET.name], FILE.path)  # (506, 14)
    return Rows(inputs=table[:, :-1], targets=table[:, -1:])  # (506, 13), (506, 1)


def load() -> tuple[Rows, Rows]:
    """Return 400 tracts to train on and 106 held out."""
    return split(tracts(), TRAIN_ROWS, SPLIT_SEED)


def splits() -> list[tuple[Rows, Rows]]:
    """Return other random splits of the same sizes."""
    rows, seeds = tracts(), range(SPLITS)
    orders = [torch.from_numpy(np.random.RandomState(each).permutation(506)) for each in seeds]
    return [(rows.take(order[:TRAIN_ROWS]), rows.take(order[TRAIN_ROWS:])) for order in orders]


def columns(inputs: Tensor) -> Tensor:
    """Return COLUMNS: raw units (n, 13) -> (n, 17).

    All columns in one step: a step of the graph costs as much as the arithmetic of a row in it, and
    column by column there were 50 more of them.
    """
    names, factors, offsets, functions = zip(*COLUMNS, strict=True)
    tensor = partial(torch.tensor, device=inputs.device)
    places = {name: place for place, (name, _, _) in enumerate(FEATURES)}
    chosen = inputs.index_select(1, tensor([places[name] for name in names]))  # -> (n, 17)
    values = tensor(factors) * chosen + tensor(offsets)
    logs = values.clamp(min=SMALLEST).log()
    values = torch.where(tensor([each == "log" for each in functions]), logs, values)
    return torch.where(tensor([each == "square" for each in functions]), values.square(), values)


class Expand(nn.Module):
    """Give each member what it needs to bend a line: raw units (n, 13) -> (n, 17 + ramps).

    The 17 columns, standardized; and for each of the first 13 one ramp per bin, which rises from
    0 to 1 over the bin and stays there (piecewise linear encoding,
    https://arxiv.org/abs/2203.05556). The bins hold equal shares of the training rows.
    """

    column: Tensor
    start: Tensor
    width: Tensor
    middle: Tensor

    def __init__(self, train: Rows) -> None:
        super().__init__()
        values = columns(train.inputs)  # (n, 17)
        self.standardize = Standardize.of(values)
        bins = [
            (number, start, end - start)
            for number, column in enumerate(values[:, : len(FEATURES)].unbind(dim=1))
            for start, end in pairwise(_edges(column))
        ]
        numbers, starts, widths = zip(*bins, strict=True)
        self.register_buffer("column", torch.tensor(numbers))
        self.register_buffer("start", torch.tensor(starts))
        self.register_buffer("width", torch.tensor(widths))
        self.register_buffer("middle", self._ramps(values).mean(dim=0))
        self.size = values.shape[1] + len(bins)

    def _ramps(self, values: Tensor) -> Tensor:
        values = values.index_select(1, self.column)  # (n, 17) -> (n, ramps)
        return ((values - self.start) / self.width).clamp(0, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scale and encode."""
        values = columns(inputs)
        plain = self.standardize(values).clamp(-FARTHEST, FARTHEST)
        return torch.cat([plain, self._ramps(values) - self.middle], dim=1)  # -> (n, 17 + ramps)


def _edges(column: Tensor) -> list[float]:
    """Return the borders of the bins of one column, (n,); none if it has only two values."""
    borders = column.double().quantile(torch.linspace(0, 1, BINS + 1, dtype=torch.float64))
    edges = borders[:1].tolist()
    for border in borders[1:].tolist():
        if border - edges[-1] > THINNEST * column.std():
            edges.append(border)
    return edges if len(edges) > 2 else []


class Price(nn.Module):
    """Turn the answers of the members into a price and its interval, in 1000 USD.

    The members give standardized logarithms of the price, whose mean is the value. The interval
    reaches `reach` times sqrt(floor + their variance) to both sides of it: wider where they
    differ. No price is above the highest of the training rows, as the data set cuts prices off.
    """

    mean: Tensor
    std: Tensor
    dearest: Tensor
    reach: Tensor
    floor: Tensor

    def __init__(self, train: Rows) -> None:
        super().__init__()
        logs = train.targets.log()
        self.register_buffer("mean", logs.mean())
        self.register_buffer("std", logs.std())
        self.register_buffer("dearest", train.targets.max())
        self.register_buffer("reach", torch.tensor(1.0))  # both: see calibrate
        self.register_buffer("floor", torch.tensor(1.0))

    def standardize(self, prices: Tensor) -> Tensor:
        """Turn prices in 1000 USD into standardized logarithms; the shape stays."""
        return (prices.log() - self.mean) / self.std

    def prices(self, standardized: Tensor) -> Tensor:
        """Turn standardized logarithms into prices in 1000 USD; the shape stays."""
        return (standardized * self.std + self.mean).exp().minimum(self.dearest)

    def bounds(self, middle: Tensor, variance: Tensor) -> Tensor:
        """Return lower and upper price around a mean of the members: (n, 1) -> (n, 1, 2)."""
        half = self.reach * (self.floor + variance).sqrt()
        return self.prices(torch.stack([middle - half, middle + half], dim=2))  # -> (n, 1, 2)

    def forward(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Combine: (members, n, 1) -> value (n, 1) and interval (n, 1, 2)."""
        middle = answers.mean(dim=0)  # (members, n, 1) -> (n, 1)
        variance = (answers - middle).square().sum(dim=0) / (len(answers) - 1)  # -> (n, 1)
        return self.prices(middle), self.bounds(middle, variance)


def build(parameters: Hyperparameters, train: Rows) -> nn.Sequential:
    """Build the network: raw units (n, 13) -> value (n, 1) and interval (n, 1, 2), 1000 USD."""
    expand = Expand(train)
    return sequence(
        expand=expand,  # (n, 13) -> (n, size)
        members=Ensemble(MEMBERS, expand.size, parameters, 1),  # -> (members, n, 1)
        answer=Price(train),  # -> (n, 1) and (n, 1, 2)
    )


def draw_parts(rows: int) -> Tensor:
    """Draw which rows each member does not learn from: bool (members, rows).

    The rows are cut into PARTS equal parts, anew for every PARTS members, each of which leaves
    one part out. So every row is unseen by MEMBERS / PARTS members.
    """
    unseen = torch.zeros(MEMBERS, rows, dtype=torch.bool)
    for first in range(0, MEMBERS, PARTS):
        parts = torch.randperm(rows).reshape(PARTS, -1)  # (rows,) -> (PARTS, rows / PARTS)
        for member, left_out in enumerate(parts, start=first):
            unseen[member, left_out] = True
    return unseen


def deal(rows: Rows, unseen: Tensor) -> Rows:
    """Give each member its own rows in its own order, so that a batch has others for each.

    rows: inputs (n, size), targets (n, 1). unseen: bool (members, n), as many in each line.
    Returns inputs (seen, members, size) and targets (seen, members).
    """
    orders = [torch.randperm(len(rows.inputs)) for _ in unseen]
    seen = [order[~without[order]] for order, without in zip(orders, unseen, strict=True)]
    which = torch.stack(seen, dim=1)  # members x (seen,) -> (seen, members)
    return Rows(inputs=rows.inputs[which], targets=rows.targets[which, 0])


def give_all(rows: Rows) -> Rows:
    """Give every member the same rows, of the shapes that `deal` gives."""
    return Rows(
        inputs=rows.inputs[:, None].expand(-1, MEMBERS, -1),  # (n, size) -> (n, members, size)
        targets=rows.targets.expand(-1, MEMBERS),  # (n, 1) -> (n, members)
    )


class MembersFirst(nn.Module):
    """Put the members of a batch of dealt rows first, as Ensemble takes them."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Swap rows and members."""
        return inputs.transpose(0, 1)  # (n, members, size) -> (members, n, size)


def huber(answers: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of each member: (members, n, 1), targets (n, members) -> (members,)."""
    loss = partial(nn.functional.huber_loss, reduction="none", delta=HUBER_DELTA)
    losses = loss(answers[:, :, 0], targets.T)  # (members, n)
    return losses.mean(dim=1)  # -> (members,)


def learn(
    network: nn.Sequential, parameters: Hyperparameters, train: Rows, watch: Watch | None
) -> History:
    """Train the members, each without its part, then set the interval by the parts left out."""
    expand, members, price = network
    assert isinstance(price, Price)

    def expanded_of(rows: Rows) -> Rows:
        with torch.no_grad():
            return Rows(inputs=expand(rows.inputs), targets=price.standardize(rows.targets))

    expanded, unseen = expanded_of(train), draw_parts(len(train.inputs))
    watch = watch and watch.on(give_all(expanded_of(watch.rows)))
    dealt = deal(expanded, unseen)
    history = fit(nn.Sequential(MembersFirst(), members), dealt, huber, parameters, watch)
    members.eval()
    with torch.no_grad():
        answers = members(expanded.inputs)  # (members, n, 1)
    calibrate(price, answers[:, :, 0], unseen.float(), expanded.targets[:, 0])
    return history


def calibrate(price: Price, answers: Tensor, unseen: Tensor, truth: Tensor) -> None:
    """Choose `floor` and `reach` so that intervals of unseen rows hold COVERAGE of the truth.

    answers, unseen (1 or 0): (members, n). truth: (n,), standardized logarithms. Each row is
    answered only by members that have not seen it. Of all pairs that cover enough, the one with
    the narrowest mean interval in 1000 USD is taken (split conformal prediction with normalised
    residuals, https://arxiv.org/abs/1604.04173).
    """
    count = unseen.sum(dim=0)  # (n,)
    middle = (answers * unseen).sum(dim=0) / count
    variance = ((answers - middle).square() * unseen).sum(dim=0) / (count - 1).clamp(min=1)
    rank = min(len(truth), math.ceil(COVERAGE * (len(truth) + 1)))
    choices = []
    for share in FLOORS:
        price.floor = share * variance.mean()
        scores = (truth - middle).abs() / (price.floor + variance).sqrt()
        price.reach = scores.kthvalue(rank).values
        lower, upper = price.bounds(middle[:, None], variance[:, None]).unbind(dim=2)
        choices.append(((upper - lower).mean().item(), price.floor, price.reach))
    _, price.floor, price.reach = min(choices, key=lambda choice: choice[0])


def typical_houses(train: Rows) -> dict[str, Tensor]:
    """Return the median of each column over all rows and over both ends of the price: (13,)."""
    prices = train.targets[:, 0]  # (n, 1) -> (n,)
    low, high = prices.quantile(0.25), prices.quantile(0.75)
    groups = {
        "median house": train.inputs,
        "median of the cheapest quarter": train.inputs[prices <= low],
        "median of the dearest quarter": train.inputs[prices >= high],
    }
    return {name: rows.double().quantile(0.5, dim=0) for name, rows in groups.items()}


def baselines(seed: int) -> dict[str, Classical]:
    """Return the classical models that `evaluate` trains too."""
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import LinearRegression

    trees = {"n_estimators": 600, "learning_rate": 0.03, "max_depth": 5}
    leaves = {"subsample": 0.6, "max_features": 0.25, "min_samples_leaf": 3}
    return {
        "linear regression": LinearRegression(),
        "random forest": RandomForestRegressor(300, random_state=seed),
        "gradient boosting": GradientBoostingRegressor(random_state=seed),
        "gradient boosting, tuned": GradientBoostingRegressor(**trees | leaves, random_state=seed),
    }


RECIPE = Recipe(
    name="housing",
    description="The median price of the homes in a Boston census tract of 1970.",
    features=FEATURES,
    targets=[TARGET],
    interval=Interval(coverage=COVERAGE),
    dataset=DATASET,
    parameters=PARAMETERS,
    notes={"members": MEMBERS, "parts": PARTS},
    floor=Floor("rmse", at_most=3.0),
    load=load,
    build=build,
    learn=learn,
    typical=typical_houses,
    digits=4,
    splits=splits,
    baselines=baselines,
)
