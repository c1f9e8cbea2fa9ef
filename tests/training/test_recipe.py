import msgspec
import pytest
import torch
from torch import nn

from service.card import Dataset
from training import xor
from training.hyperparameters import Hyperparameters
from training.loop import History
from training.recipe import learn_logits, learnt, present, train
from training.rows import Rows

QUICK = msgspec.structs.replace(xor.PARAMETERS, epochs=2)


@pytest.mark.slow
def test_equal_parameters_give_an_equal_candidate() -> None:
    first, again = (train(xor.RECIPE, QUICK) for _ in range(2))
    assert first.files == again.files
    assert first.card == again.card


def test_equal_parameters_give_equal_losses() -> None:
    rows, _ = xor.load()
    first, again = (learnt(xor.RECIPE, QUICK, rows)[1] for _ in range(2))
    assert first == again
    assert first != learnt(xor.RECIPE, msgspec.structs.replace(QUICK, seed=1), rows)[1]


def test_rows_held_out_are_watched_and_choose_nothing(clouds: Rows) -> None:
    alone, history = learnt(xor.RECIPE, QUICK, xor.load()[0])
    assert history.held_out == []
    watched, history = learnt(xor.RECIPE, QUICK, xor.load()[0], xor.load()[1])
    assert len(history.held_out) == 2
    for one, other in zip(alone.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)


def test_last_layer_is_not_learnt_as_the_loss_contains_it(
    clouds: Rows, toy_parameters: Hyperparameters
) -> None:
    seen: list[torch.Tensor] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(outputs.detach())
        return nn.functional.cross_entropy(outputs, targets)

    network = nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1))
    learn_logits(network, toy_parameters, clouds, None, loss=loss)
    assert not torch.allclose(seen[0].sum(dim=1), torch.ones(len(seen[0])))


def test_card_is_written_from_the_recipe_and_the_rows() -> None:
    rows, _ = xor.load()
    network = xor.build(QUICK, rows)
    digest = Dataset(name="a", source="b", sha256="1" * 64, licence="c")
    recipe = msgspec.structs.replace(
        xor.RECIPE,
        dataset=lambda: digest,
        notes={"members": 3},
        measure=lambda network, rows: {"accuracy": 0.5, "other": float(len(rows.inputs))},
        request="",
    )
    held_out = rows.take(torch.tensor([1, 2, 3]))
    candidate = present(recipe, network, QUICK, rows, held_out, History([2.0, 1.0], []))
    card = candidate.card
    assert (card.task, card.labels) == ("classification", ["0", "1"])
    assert card.dataset == digest
    assert card.training["members"] == 3
    assert (card.training["train_rows"], card.training["held_out_rows"]) == (4, 3)
    assert card.metrics == {"accuracy": 0.5, "other": 3.0}
    assert candidate.request_example == card.examples[0].name == "0 xor 0 is 0"
    assert len(candidate.rows) == 7
    plots = [picture.file for picture in card.pictures]
    assert plots == ["loss.png", "confusion.png", "boundary.png"]
    assert set(candidate.files) == {*plots, "history.json"}


@pytest.mark.slow
def test_without_a_history_there_is_neither_its_file_nor_its_plot() -> None:
    rows, _ = xor.load()
    candidate = present(xor.RECIPE, xor.build(QUICK, rows), QUICK, rows, rows, None)
    assert list(candidate.files) == ["confusion.png", "boundary.png"]
    assert [picture.file for picture in candidate.card.pictures] == list(candidate.files)
    assert candidate.request_example == "0 xor 1 is 1"
