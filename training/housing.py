"""Housing: the median price of the houses in a Boston census tract of 1970, in 1000 USD.

    python -m training housing

RMSE 3.22, MAE 2.27 (thousand dollars) on the 106 held-out tracts; 2 s on one core.
"""

from collections import OrderedDict

from torch import Tensor, nn

from service.card import Card, Dataset, Target
from training import describe
from training.data import File, Rows, parse_csv, read, split
from training.export import Candidate, Floor
from training.loop import Hyperparameters, evaluate, fit
from training.network import Destandardize, Standardize, perceptron

TRAIN_ROWS = 400  # of 506; the other 106 are held out
# Which rows those are decides the result more than the network does: linear regression errs by
# 3.71 to 6.60 over the seeds 0 to 100. This is the seed of its median, 4.81: neither a lucky
# split nor one chosen by looking at the network. It is not --seed, which changes no split.
SPLIT_SEED = 71
FLOOR = Floor("rmse", at_most=3.6)

# Chosen by 5-fold cross-validation within the 400 training rows (RMSE 3.29).
PARAMETERS = Hyperparameters(
    hidden=(64, 64),  # (128, 128) gave 3.26, (64, 32) 3.41, (64,) 3.44
    epochs=100,  # 60 gave 3.27, 200 gave 3.37
    batch_size=32,  # thirteen steps an epoch
    learning_rate=0.01,  # 0.003 gave 3.30, 0.02 gave 3.42
    weight_decay=0.01,  # 0.3 gave 3.32, 1.0 gave 3.44
    seed=0,
)

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


def load() -> tuple[Rows, Rows]:
    """Return 400 tracts to train on and 106 held out.

    inputs: float32 (n, 13), in the units of FEATURES. targets: float32 (n, 1), 1000 USD.
    """
    columns = [name for name, _, _ in FEATURES]
    table = parse_csv(read(FILE), [*columns, TARGET.name], FILE.path)  # (506, 14)
    rows = Rows(inputs=table[:, :-1], targets=table[:, -1:])  # (506, 13), (506, 1)
    return split(rows, TRAIN_ROWS, SPLIT_SEED)


def build(hidden: tuple[int, ...], train: Rows) -> nn.Sequential:
    """Build the network: raw units (n, 13) -> 1000 USD (n, 1)."""
    layers: dict[str, nn.Module] = {
        "scale": Standardize(train.inputs.mean(dim=0), train.inputs.std(dim=0)),
        "layers": perceptron(13, hidden, 1),  # (n, 13) -> (n, 1)
        "answer": Destandardize(train.targets.mean(dim=0), train.targets.std(dim=0)),
    }
    return nn.Sequential(OrderedDict(layers))


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


def train(parameters: Hyperparameters) -> Candidate:
    """Train on 400 tracts and describe the result on the other 106."""
    train_rows, held_out = load()
    network = build(parameters.hidden, train_rows)
    fit(network, train_rows, nn.functional.mse_loss, parameters)
    card = Card(
        task="regression",
        description="The median price of the homes in a Boston census tract of 1970.",
        features=describe.features(FEATURES, train_rows.inputs),
        targets=[TARGET],
        metrics=evaluate(network, held_out),
        dataset=DATASET,
        training=describe.configuration(parameters, train_rows, held_out),
        versions=describe.versions(),
        examples=describe.examples(network, typical_houses(train_rows), digits=4),
    )
    return Candidate(
        name="housing",
        version=1,
        network=network,
        card=card,
        rows=held_out.inputs,
        floor=FLOOR,
        request_example="median house",
    )
