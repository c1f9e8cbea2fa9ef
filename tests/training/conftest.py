import pytest
import torch
from torch import Tensor, nn

from service.card import Card, Dataset, Target
from training import describe
from training.export import Candidate, Floor
from training.hyperparameters import Hyperparameters
from training.loop import evaluate, fit, make_deterministic
from training.network import Destandardize, Standardize, perceptron, sequence
from training.rows import Rows

TOY = Hyperparameters(
    hidden=(8,), epochs=10, batch_size=16, learning_rate=0.05, weight_decay=0.01, seed=3
)
CORNERS = torch.tensor([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]])


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let no test's first weights depend on the tests that ran before it in the same process."""
    torch.manual_seed(TOY.seed)


@pytest.fixture
def toy_parameters() -> Hyperparameters:
    return TOY


@pytest.fixture
def clouds() -> Rows:
    """120 points in three clouds: inputs (120, 2), targets (120,)."""
    return make_clouds()


def make_clouds() -> Rows:
    random = torch.Generator().manual_seed(1)
    targets = torch.arange(120) % 3
    inputs = CORNERS[targets] + 4 * torch.randn(120, 2, generator=random)
    return Rows(inputs=inputs, targets=targets)


@pytest.fixture(scope="session")
def classifier() -> Candidate:
    """A classifier of three clouds, trained in a blink."""
    clouds = make_clouds()
    make_deterministic(TOY.seed)
    network = sequence(
        scale=Standardize.of(clouds.inputs),
        layers=perceptron(2, TOY, 3),
        answer=nn.Softmax(dim=1),
    )
    fit(network[:-1], clouds, nn.functional.cross_entropy, TOY)
    corners: dict[str, Tensor] = dict(zip(["origin", "east", "north"], CORNERS, strict=True))
    columns = [("x", "m", "to the east"), ("y", "m", "to the north")]
    card = Card(
        task="classification",
        description="Which cloud a point is in.",
        features=describe.features(columns, clouds.inputs),
        labels=list(corners),
        metrics=evaluate(network, clouds),
        dataset=Dataset(name="clouds", source="made up", sha256="0" * 64, licence="MIT"),
        training=describe.configuration(TOY, clouds, clouds),
        versions=describe.versions(),
        examples=describe.examples(network, corners, digits=1),
    )
    return Candidate(
        network=network,
        card=card,
        rows=clouds.inputs,
        floor=Floor("accuracy", at_least=0.9),
        request_example="east",
    )


@pytest.fixture(scope="session")
def regressor() -> Candidate:
    """A regression model of x + 2 y over the same points."""
    points = make_clouds().inputs
    rows = Rows(inputs=points, targets=points[:, :1] + 2 * points[:, 1:])
    make_deterministic(TOY.seed)
    network = sequence(
        scale=Standardize.of(points),
        layers=perceptron(2, TOY, 1),
        answer=Destandardize.of(rows.targets),
    )
    fit(network, rows, nn.functional.mse_loss, TOY)
    columns = [("x", "m", "to the east"), ("y", "m", "to the north")]
    card = Card(
        task="regression",
        description="x + 2 y.",
        features=describe.features(columns, points),
        targets=[Target(name="z", unit="m", description="x + 2 y")],
        metrics=evaluate(network, rows),
        dataset=Dataset(name="clouds", source="made up", sha256="0" * 64, licence="MIT"),
        training=describe.configuration(TOY, rows, rows),
        versions=describe.versions(),
        examples=describe.examples(network, {"middle": torch.tensor([13.25, 13.25])}, digits=1),
    )
    return Candidate(
        network=network,
        card=card,
        rows=points,
        floor=Floor("rmse", at_most=10.0),
        request_example="middle",
    )
