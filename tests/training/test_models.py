"""The models in models/ are what their cards say. `make train` writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from service.card import METADATA_KEY, Card, Example
from training import housing, iris, mnist
from training.data import Rows
from training.export import Candidate, Floor, request_body
from training.loop import answer, evaluate

MODELS = Path(__file__).parents[2] / "models"

Load = Callable[[], tuple[Rows, Rows]]
Build = Callable[[tuple[int, ...], Rows], nn.Sequential]


class Committed:
    """One committed model, and what trained it."""

    def __init__(self, name: str, load: Load, build: Build, floor: Floor) -> None:
        self.name, self.floor = name, floor
        self.folder = MODELS / name / "1"
        self.session = onnxruntime.InferenceSession(self.folder / "model.onnx")
        properties = self.session.get_modelmeta().custom_metadata_map
        self.card = Card.from_json(properties[METADATA_KEY])
        self.train, self.held_out = load()
        hidden = self.card.training["hidden"]
        assert isinstance(hidden, list)
        self.network = build(tuple(hidden), self.train)
        saved = torch.load(self.folder / "state_dict.pt", weights_only=True)
        self.network.load_state_dict(saved)

    def run(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"input": rows.numpy()})[0])


@pytest.fixture(scope="module", params=["iris", "housing", "mnist"])
def model(request: pytest.FixtureRequest) -> Committed:
    module = {"iris": iris, "housing": housing, "mnist": mnist}[request.param]
    if module is not iris:
        request.getfixturevalue("real_data")
    return Committed(request.param, module.load, module.build, module.FLOOR)


class Runtime(nn.Module):
    """ONNX Runtime in the place of the network, so that `evaluate` measures the file."""

    def __init__(self, model: Committed) -> None:
        super().__init__()
        self.run = model.run

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.run(rows)


def test_file_keeps_its_floor_on_the_held_out_rows(model: Committed) -> None:
    metrics = evaluate(Runtime(model), model.held_out)
    assert metrics == pytest.approx(model.card.metrics, abs=2e-4)
    assert model.floor.at_least <= metrics[model.floor.metric] <= model.floor.at_most


def test_file_and_state_dict_agree_on_a_thousand_rows(model: Committed) -> None:
    rows = model.held_out.inputs[:1000]
    expected = answer(model.network, rows)
    if model.card.task == "classification":
        torch.testing.assert_close(model.run(rows), expected, atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(model.run(rows), expected, atol=0, rtol=1e-4)


def test_examples_are_answered_as_the_card_says(model: Committed) -> None:
    for example in model.card.examples:
        answers = model.run(torch.tensor([example.input]))
        np.testing.assert_allclose(answers[0], example.output, rtol=1e-4, atol=1e-5)


def test_example_of_a_label_is_given_that_label(model: Committed) -> None:
    if model.card.task == "regression":
        middle, cheap, dear = (example.output[0] for example in model.card.examples)
        assert cheap < middle < dear
        return
    assert [example.name.split()[-1] for example in model.card.examples] == model.card.labels
    assert [np.argmax(example.output) for example in model.card.examples] == list(
        range(len(model.card.labels))
    )


def test_examples_are_no_rows_of_the_data_set(model: Committed) -> None:
    rows = torch.cat([model.train.inputs, model.held_out.inputs])
    for example in model.card.examples:
        if model.name != "iris":  # a mean to a millimetre may well be some flower's size
            assert not (rows == torch.tensor(example.input)).all(dim=1).any()


def test_request_is_made_from_an_example(model: Committed) -> None:
    body = (model.folder / "request.json").read_text()

    def is_it(example: Example) -> bool:
        candidate = Candidate(
            name=model.name,
            version=1,
            network=model.network,
            card=model.card,
            rows=model.held_out.inputs,
            floor=model.floor,
            request_example=example.name,
        )
        return request_body(candidate) == body

    assert sum(is_it(example) for example in model.card.examples) == 1
    assert set(json.loads(body)) == {"model", "instances"}


def test_card_is_that_of_the_code(model: Committed) -> None:
    module = {"iris": iris, "housing": housing, "mnist": mnist}[model.name]
    assert model.card.dataset == module.DATASET
    parameters = module.PARAMETERS
    for field in set(parameters.__struct_fields__) - {"hidden"}:
        assert model.card.training[field] == getattr(parameters, field)


def test_all_models_together_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 5_000_000
