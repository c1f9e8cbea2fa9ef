"""The models in models/ are what their cards say. `make train` writes them."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from service.card import METADATA_KEY, Card, Example
from training.describe import hyperparameters
from training.export import Candidate, export, request_body
from training.loop import answers
from training.recipes import MODULES, load
from training.saved import load_again, read_history

MODELS = Path(__file__).parents[2] / "models"


class Committed:
    """One committed model, and what trained it."""

    def __init__(self, place: str) -> None:
        self.recipe, self.folder = load(place), MODELS / place
        self.session = onnxruntime.InferenceSession(self.folder / "model.onnx")
        properties = self.session.get_modelmeta().custom_metadata_map
        self.card = Card.from_json(properties[METADATA_KEY])
        self.train, self.held_out = self.recipe.load()
        self.network = self.recipe.build(hyperparameters(self.card.training), self.train)
        saved = torch.load(self.folder / "state_dict.pt", weights_only=True)
        self.network.load_state_dict(saved)

    def run(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(map(torch.from_numpy, self.session.run(None, {"input": rows.numpy()})))


SLOW = ["mnist/1", "mnist/2"]  # their rows are many


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(place, marks=pytest.mark.slow) if place in SLOW else place for place in MODULES
    ],
)
def model(request: pytest.FixtureRequest) -> Committed:
    if request.param.startswith(("housing", "mnist")):
        request.getfixturevalue("real_data")
    return Committed(request.param)


class Runtime(nn.Module):
    """ONNX Runtime in the place of the network, so that the file is measured."""

    def __init__(self, model: Committed) -> None:
        super().__init__()
        self.run = model.run

    def forward(self, rows: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        outputs = self.run(rows)
        return outputs if len(outputs) > 1 else outputs[0]


def test_file_keeps_its_floor_on_the_held_out_rows(model: Committed) -> None:
    metrics = model.recipe.measure(Runtime(model), model.held_out)
    assert metrics == pytest.approx(model.card.metrics, abs=4e-4)
    floor = model.recipe.floor
    assert floor.at_least <= metrics[floor.metric] <= floor.at_most


def test_file_and_state_dict_agree_on_a_thousand_rows(model: Committed) -> None:
    rows = torch.cat([model.held_out.inputs, model.train.inputs])[:1000]
    absolute, relative = (1e-5, 0.0) if model.card.labels else (0.0, 1e-4)
    for got, expected in zip(model.run(rows), answers(model.network, rows), strict=True):
        torch.testing.assert_close(got, expected, atol=absolute, rtol=relative)


def test_examples_are_answered_as_the_card_says(model: Committed) -> None:
    for example in model.card.examples:
        answer, *intervals = model.run(torch.tensor([example.input]))
        np.testing.assert_allclose(answer[0], example.output, rtol=1e-4, atol=1e-5)
        assert len(intervals) == (model.card.interval is not None)
        for interval in intervals:
            np.testing.assert_allclose(interval.flatten(), example.interval, rtol=1e-4)


def test_intervals_hold_what_they_promise(model: Committed) -> None:
    if model.card.interval is not None:
        assert abs(model.card.metrics["interval_coverage"] - model.card.interval.coverage) <= 0.05


def test_example_of_a_label_is_given_that_label(model: Committed) -> None:
    if model.card.task == "regression":
        middle, cheap, expensive = (example.output[0] for example in model.card.examples)
        assert cheap < middle < expensive
        return
    labels = model.card.labels
    for example in model.card.examples:
        assert example.name.endswith(labels[int(np.argmax(example.output))])
    assert {int(np.argmax(example.output)) for example in model.card.examples} == set(
        range(len(labels))
    )


@pytest.mark.slow
def test_examples_are_no_rows_of_the_data_set(model: Committed) -> None:
    rows = torch.cat([model.train.inputs, model.held_out.inputs])
    for example in model.card.examples:
        # A mean to a millimetre may well be some flower's size, and XOR has but four rows.
        if model.recipe.name not in ("iris", "xor"):
            values = torch.tensor(example.input)
            middle = len(values) // 2
            alike = rows[rows[:, middle] == values[middle]]  # few of 70,000 images
            assert not (alike == values).all(dim=1).any()


def test_request_is_made_from_an_example(model: Committed) -> None:
    body = (model.folder / "request.json").read_bytes()

    def is_it(example: Example) -> bool:
        candidate = Candidate(
            network=model.network,
            card=model.card,
            rows=model.held_out.inputs,
            floor=model.recipe.floor,
            request_example=example.name,
        )
        return request_body(candidate, model.recipe.name) == body

    assert sum(is_it(example) for example in model.card.examples) == 1
    assert set(json.loads(body)) == {"model", "instances"}


def test_card_is_that_of_the_code(model: Committed) -> None:
    assert model.card.dataset == model.recipe.dataset
    assert model.card.description == model.recipe.description
    assert hyperparameters(model.card.training) == model.recipe.parameters


def test_plots_of_the_card_are_beside_the_model(model: Committed) -> None:
    plots = {picture.file for picture in model.card.pictures}
    assert plots == {path.name for path in model.folder.glob("*.png")}
    kind = "confusion.png" if model.card.task == "classification" else "predicted.png"
    assert {"loss.png", kind} <= plots
    assert ("boundary.png" in plots) == (len(model.card.features) == 2)


def test_history_is_that_of_the_training(model: Committed) -> None:
    history = read_history(model.folder / "history.json", model.recipe.parameters.epochs)
    assert history is not None
    assert len(history.loss) == len(history.held_out) <= model.recipe.parameters.epochs
    assert history.loss[-1] < history.loss[0]


@pytest.mark.slow
def test_exported_anew_the_files_are_the_same(model: Committed, tmp_path: Path) -> None:
    folder = tmp_path / model.recipe.place
    export(load_again(model.recipe, model.folder), folder)
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in model.folder.iterdir()
    }
    for path in folder.iterdir():
        assert path.read_bytes() == (model.folder / path.name).read_bytes(), path.name


def test_all_models_together_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 8_000_000
