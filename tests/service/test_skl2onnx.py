"""Classifiers of scikit-learn, converted with skl2onnx and served as their users bring them.

The oracle is scikit-learn's own predict and predict_proba. skl2onnx ends a classifier with a ZipMap
unless it is told not to: a sequence of maps beside the label.
"""

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from tritonclient.utils import np_to_triton_dtype

from tests.support.processes import Process, running

pytestmark = pytest.mark.slow  # tests/system/converters hold more such files

IRIS = load_iris()
FLOWERS = IRIS.data.astype(np.float32)  # (150, 4)
KINDS = IRIS.target  # int64 (150,)
NAMES = IRIS.target_names[KINDS]  # strings (150,)
OTHERS, OF_OTHERS = FLOWERS[50:], KINDS[50:]  # of two kinds
MACHINES = {  # support vector machines, which have no probabilities
    "two": SVC().fit(OTHERS, OF_OTHERS),
    "linear": LinearSVC(random_state=0).fit(OTHERS, OF_OTHERS),
}
OF_IRIS = ["logistic", "forest", "named"]

# Houses, a column each: area float32, rooms int64, city and heating strings.
COLUMNS = [
    ("area", FloatTensorType([None, 1])),
    ("rooms", Int64TensorType([None, 1])),
    ("city", StringTensorType([None, 1])),
    ("heating", StringTensorType([None, 1])),
]


def houses() -> NDArray[np.object_]:
    """Return 80 houses: objects (80, 4)."""
    random = np.random.default_rng(0)
    houses = np.empty((80, 4), np.object_)
    houses[:, 0] = random.uniform(30, 200, 80).astype(np.float32).tolist()
    houses[:, 1] = random.integers(1, 5, 80).tolist()  # 0 is no number of rooms
    houses[:, 2] = random.choice(["Łódź", "Zürich", "Rome"], 80)
    houses[:, 3] = random.choice(["gas", "wood"], 80)
    return houses


HOUSES = houses()


def pipeline(**unknown: str) -> ClassifierMixin:
    """Return what tells dear houses from others; `unknown` is for the OneHotEncoder."""
    prepared = ColumnTransformer(
        [("scaled", StandardScaler(), [0]), ("one_hot", OneHotEncoder(**unknown), [1, 2, 3])]
    )
    is_dear = (HOUSES[:, 0] > 120) | (HOUSES[:, 2] == "Zürich")
    return make_pipeline(prepared, LogisticRegression()).fit(HOUSES, is_dear.astype(np.int64))


@pytest.fixture(scope="module")
def models() -> dict[str, ClassifierMixin]:
    """The three of iris, and two of houses."""
    return {
        "logistic": LogisticRegression(max_iter=1000).fit(FLOWERS, KINDS),
        "forest": RandomForestClassifier(10, random_state=0).fit(FLOWERS, KINDS),
        "named": LogisticRegression(max_iter=1000).fit(FLOWERS, NAMES),
        "strict": pipeline(),
        "ignoring": pipeline(handle_unknown="ignore"),
    }


@pytest.fixture(scope="module")
def service(
    models: dict[str, ClassifierMixin], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """Each model with a ZipMap, as skl2onnx has it by default, and as `_arrays` without."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        taken: Any = {"X": FLOWERS[:1]} if name in OF_IRIS else {"initial_types": COLUMNS}
        save(folder, name, to_onnx(model, **taken))
        save(folder, f"{name}_arrays", to_onnx(model, options={"zipmap": False}, **taken))
    for name, machine in MACHINES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # skl2onnx 1.20 with scikit-learn 1.9
            save(folder, name, to_onnx(machine, X=OTHERS[:1]))
    with running(models_dir=folder) as service:
        yield service


def save(folder: Path, name: str, graph: ModelProto) -> None:
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(graph.SerializeToString())


@pytest.fixture
def client(service: Process) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


def given(name: str, array: NDArray[Any], *, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return given.set_data_from_numpy(array, binary_data=binary)


def columns(houses: NDArray[np.object_], *, binary: bool = True) -> list[triton.InferInput]:
    """Return the inputs that hold these houses, one for each column."""
    dtypes = (np.float32, np.int64, np.object_, np.object_)
    return [
        given(name, houses[:, [place]].astype(dtype), binary=binary)
        for place, ((name, _), dtype) in enumerate(zip(COLUMNS, dtypes, strict=True))
    ]


def as_text(labels: NDArray[Any]) -> list[Any]:
    return [each.decode() if isinstance(each, bytes) else each for each in labels.tolist()]


def test_every_model_serves(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert {each["name"]: each["reason"] for each in index if each["reason"]} == {}
    assert client.is_server_ready()


@pytest.mark.parametrize("name", OF_IRIS)
def test_a_zipmap_is_answered_as_the_array_that_it_was_made_of(
    service: Process,
    client: triton.InferenceServerClient,
    models: dict[str, ClassifierMixin],
    name: str,
) -> None:
    assert not any("left out" in line for line in service.log)
    described = client.get_model_metadata(name)
    assert [(each["name"], each["shape"]) for each in described["outputs"]] == [
        ("output_label", [-1]),
        ("output_probability", [-1, 3]),
    ]
    answer = client.infer(name, [given("X", FLOWERS)])
    assert as_text(answer.as_numpy("output_label")) == models[name].predict(FLOWERS).tolist()
    gaps = answer.as_numpy("output_probability") - models[name].predict_proba(FLOWERS)
    assert np.abs(gaps).max() < 1e-5


@pytest.mark.parametrize("name", OF_IRIS)
def test_without_it_labels_and_probabilities_are_answered(
    service: Process,
    client: triton.InferenceServerClient,
    models: dict[str, ClassifierMixin],
    name: str,
) -> None:
    model = models[name]
    labels, probabilities = model.predict(FLOWERS).tolist(), model.predict_proba(FLOWERS)
    for binary in (True, False):
        answer = client.infer(
            f"{name}_arrays",
            [given("X", FLOWERS, binary=binary)],
            outputs=[
                triton.InferRequestedOutput("probabilities", binary_data=binary),
                triton.InferRequestedOutput("label", binary_data=not binary),
            ],
        )
        assert as_text(answer.as_numpy("label")) == labels
        assert np.abs(answer.as_numpy("probabilities") - probabilities).max() < 1e-5


@pytest.mark.parametrize("kind", ["", "_arrays"], ids=["maps", "arrays"])
@pytest.mark.parametrize("name", OF_IRIS)
def test_predict_answers_labels_and_their_probabilities(
    service: Process, models: dict[str, ClassifierMixin], name: str, kind: str
) -> None:
    model = models[name]
    body = {"model": name + kind, "instances": FLOWERS.tolist()}
    predictions = service.post("/predict", json=body).json()["predictions"]
    assert [each["label"] for each in predictions] == model.predict(FLOWERS).tolist()
    names = [str(each) for each in model.classes_]
    assert {tuple(each["probabilities"]) for each in predictions} == {tuple(names)}
    got = np.array([list(each["probabilities"].values()) for each in predictions])
    assert np.abs(got - model.predict_proba(FLOWERS)).max() < 1e-5
    assert [each["probability"] for each in predictions] == [
        each["probabilities"][str(each["label"])] for each in predictions
    ]


def test_decision_values_are_called_scores_and_warned_of(service: Process) -> None:
    """skl2onnx calls those of LinearSVC and SVC probabilities."""
    for name, machine in MACHINES.items():
        body = {"model": name, "instances": OTHERS.tolist()}
        predictions = service.post("/predict", json=body).json()["predictions"]
        assert [each["label"] for each in predictions] == machine.predict(OTHERS).tolist()
        assert {tuple(each) for each in predictions} == {("label", "scores")}
        assert any(
            f"model {name} version 1: output " in line and "has no probabilities" in line
            for line in service.log
        )


def test_scores_in_the_wrong_order_are_warned_of(service: Process) -> None:
    """Those of a two-class SVC: the score of the label is the lower one."""
    body = {"model": "two", "instances": OTHERS.tolist()}
    for each in service.post("/predict", json=body).json()["predictions"]:
        assert each["scores"][str(each["label"])] == min(each["scores"].values())
    sentence = "model two version 1: output output_label is not the label of the highest score in "
    assert any(sentence in line for line in service.log)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("name", ["strict", "ignoring"])
def test_a_pipeline_takes_an_input_for_each_column(
    client: triton.InferenceServerClient,
    models: dict[str, ClassifierMixin],
    name: str,
    binary: bool,
) -> None:
    model = models[name]
    described = client.get_model_metadata(f"{name}_arrays")["inputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in described] == [
        ("area", "FP32", [-1, 1]),
        ("rooms", "INT64", [-1, 1]),
        ("city", "BYTES", [-1, 1]),
        ("heating", "BYTES", [-1, 1]),
    ]
    answer = client.infer(f"{name}_arrays", columns(HOUSES, binary=binary))
    assert np.array_equal(answer.as_numpy("label"), model.predict(HOUSES))
    assert np.abs(answer.as_numpy("probabilities") - model.predict_proba(HOUSES)).max() < 1e-5


@pytest.mark.parametrize("name", ["strict", "ignoring"])
def test_a_pipeline_with_a_zipmap_answers_the_label(
    client: triton.InferenceServerClient, models: dict[str, ClassifierMixin], name: str
) -> None:
    answer = client.infer(name, columns(HOUSES))
    assert np.array_equal(answer.as_numpy("output_label"), models[name].predict(HOUSES))


def test_an_unknown_category_is_what_the_encoder_makes_of_it(
    client: triton.InferenceServerClient, models: dict[str, ClassifierMixin]
) -> None:
    strange = HOUSES[:1].copy()
    strange[0, 2] = "Atlantis"
    answer = client.infer("ignoring", columns(strange))
    assert np.array_equal(answer.as_numpy("output_label"), models["ignoring"].predict(strange))
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("strict", columns(strange))
    assert caught.value.status() == "400"
    assert caught.value.message().startswith("expected values that the model knows: its OneHot")
    assert client.infer("strict", columns(HOUSES[:1])).as_numpy("output_label").shape == (1,)
    with pytest.raises(ValueError, match="unknown categories"):
        models["strict"].predict(strange)


@pytest.mark.anyio
async def test_an_unknown_category_fails_only_the_request_that_has_it(
    service: Process, models: dict[str, ClassifierMixin]
) -> None:
    """They meet in the batches: what stands in one cannot be computed with one of them."""

    async def ask(client: Any, house: int) -> None:
        asked = HOUSES[[house]]  # a copy
        if house % 10 == 7:
            asked[0, 2] = "Atlantis"
            with pytest.raises(triton.InferenceServerException, match="that the model knows"):
                await client.infer("strict_arrays", columns(asked))
            return
        answer = await client.infer("strict_arrays", columns(asked))
        assert np.abs(answer.as_numpy("probabilities") - expected[house]).max() < 1e-5

    expected = models["strict"].predict_proba(HOUSES)
    async with triton_aio.InferenceServerClient(service.url.removeprefix("http://")) as client:
        await asyncio.gather(*(ask(client, house) for house in range(len(HOUSES))))


@pytest.mark.parametrize("name", ["ignoring", "strict", "ignoring_arrays", "strict_arrays"])
def test_predict_answers_columns_as_scikit_learn_does(
    service: Process, models: dict[str, ClassifierMixin], name: str
) -> None:
    columns = [column for column, _ in COLUMNS]
    lists = [[area, int(rooms), *words] for area, rooms, *words in HOUSES.tolist()]
    named = [dict(zip(columns, house, strict=True)) for house in lists]
    expected = models[name.partition("_")[0]].predict_proba(HOUSES)
    (version,) = service.get(f"/models/{name}").json()["versions"]
    assert version["batching"]["of"] == "rows"
    for instances in (lists, named):
        reply = service.post("/predict", json={"model": name, "instances": instances})
        answers = reply.json()["predictions"]
        probabilities = np.array([[*each["probabilities"].values()] for each in answers])
        assert np.abs(probabilities - expected).max() < 1e-5
