from pathlib import Path

import pytest
from onnx import TensorProto

from service.engine.model import Model
from tests.support.toys import save_columns, save_mean, save_same, save_toy, toy_card

FLOATS = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
}
INTEGERS = {"int8": TensorProto.INT8, "int64": TensorProto.INT64, "uint64": TensorProto.UINT64}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def toy(folder: Path) -> Model:
    """A model of four named features, a, b, c and d."""
    return Model.open(save_toy(folder, card=toy_card()))


@pytest.fixture(scope="session")
def mean(folder: Path) -> Model:
    """A model of images of 2 x 3 pixels."""
    return Model.open(save_mean(folder))


@pytest.fixture(scope="session")
def same(folder: Path) -> dict[str, Model]:
    """A model of each type, with rows of 4 numbers that have no names."""
    return {
        name: Model.open(save_same(folder, ["batch", 4], kind, name=name))
        for name, kind in (FLOATS | INTEGERS).items()
    }


@pytest.fixture(scope="session")
def columns(folder: Path) -> Model:
    """A model of the columns age, rooms, city and paid, an input for each."""
    return Model.open(save_columns(folder))


@pytest.fixture(scope="session")
def any_width(folder: Path) -> Model:
    """A model of rows 2 x any, of float32."""
    return Model.open(save_same(folder, ["batch", 2, "wide"], name="wide"))


@pytest.fixture(scope="session")
def series(folder: Path) -> Model:
    """A model of rows of any length, of float32."""
    return Model.open(save_same(folder, ["batch", "length"], name="series"))
