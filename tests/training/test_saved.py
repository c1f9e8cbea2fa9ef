import io
import math
import pickle
from pathlib import Path

import pytest
import torch

from training import moons
from training.errors import Unloadable
from training.loop import History, answers
from training.saved import load_again, read_card, read_history, read_network, read_parameters

COMMITTED = Path(__file__).parents[2] / "models/moons/1"


def saved(state: object) -> bytes:
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("state_dict.pt", None, "is missing: train the model first"),
        ("state_dict.pt", b"weights", "expected the weights of this network, got: "),
        ("state_dict.pt", saved(torch.zeros(3)), "expected the weights of this network, got: "),
        ("state_dict.pt", saved({1: 2}), "expected the weights of this network, got: "),
        ("state_dict.pt", saved({"a": torch.zeros(1)}), 'Missing key(s) in state_dict: "scale.'),
        (
            "state_dict.pt",
            pickle.dumps({"evil": Path("/")}, protocol=2),
            "expected the weights of this",
        ),
        ("model.onnx", b"graph", "expected an ONNX file with a card, got: "),
        ("history.json", b'{"loss": [1', "expected the losses of a training, got: "),
        ("history.json", b'{"loss": [1], "lost": []}', "expected the losses of a training, got: "),
        (
            "history.json",
            b'{"loss": [], "held_out": []}',
            "expected the losses of 1 to 400 epochs, got 0 of training and 0 held out",
        ),
        (
            "history.json",
            b'{"loss": [' + b"1," * 400 + b'1], "held_out": []}',
            "expected the losses of 1 to 400 epochs, got 401 of training and 0 held out",
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    name: str, content: bytes | None, sentence: str, tmp_path: Path
) -> None:
    if name == "history.json":
        weights = (COMMITTED / "state_dict.pt").read_bytes()
        (tmp_path / "state_dict.pt").write_bytes(weights)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Unloadable) as caught:
        load_again(moons.RECIPE, tmp_path)
    error = str(caught.value)
    assert error.startswith(str(tmp_path / name))
    assert sentence in error
    assert "\n" not in error


def test_network_answers_as_its_card_says() -> None:
    train, _ = moons.load()
    network = read_network(moons.RECIPE, moons.PARAMETERS, train, COMMITTED)
    for example in read_card(COMMITTED / "model.onnx").examples:
        (answer,) = answers(network, torch.tensor([example.input]))
        assert answer[0].tolist() == pytest.approx(example.output, abs=1e-6)


def test_parameters_are_those_of_the_card_or_of_the_recipe(tmp_path: Path) -> None:
    card = (COMMITTED / "model.onnx").read_bytes().replace(b'"epochs":400', b'"epochs":123')
    (tmp_path / "model.onnx").write_bytes(card)
    assert read_parameters(moons.RECIPE, tmp_path).epochs == 123
    assert read_parameters(moons.RECIPE, tmp_path / "elsewhere") == moons.PARAMETERS


def test_losses_that_were_no_numbers_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"loss": [1, null], "held_out": []}')
    history = read_history(path, 2)
    assert history is not None
    assert (history.loss[0], math.isnan(history.loss[1])) == (1, True)
    assert read_history(tmp_path / "none.json", 2) is None
    path.write_text('{"loss": [1, 2], "held_out": [3, 4]}')
    assert read_history(path, 2) == History([1, 2], [3, 4])
