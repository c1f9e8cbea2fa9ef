import msgspec
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.utils import Bunch

from training import iris
from training.errors import InvalidData
from training.loop import evaluate, make_deterministic


def test_70_flowers_to_train_on_and_80_held_out_in_equal_shares() -> None:
    train, held_out = iris.load()
    assert (train.inputs.shape, held_out.inputs.shape) == ((70, 4), (80, 4))
    assert sorted(train.targets.bincount().tolist()) == [23, 23, 24]
    assert sorted(held_out.targets.bincount().tolist()) == [26, 27, 27]
    assert train.inputs.dtype == torch.float32


def test_every_flower_is_in_one_part_with_its_own_label() -> None:
    parts = iris.load()
    flowers = load_iris()
    rows = torch.cat([torch.cat([p.inputs, p.targets[:, None].float()], dim=1) for p in parts])
    expected = np.column_stack([flowers.data, flowers.target]).astype(np.float32)
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_labels_are_in_scikit_learns_order() -> None:
    assert list(load_iris().target_names) == iris.LABELS


def test_other_flowers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_at_uci() -> Bunch:
        flowers = load_iris()
        flowers.data[34, 3] = 0.1  # one of the two errors there
        return flowers

    monkeypatch.setattr(iris, "load_iris", as_at_uci)
    with pytest.raises(InvalidData, match=f"expected lengths and labels with SHA-256 {'.' * 64}"):
        iris.load()


def test_scatter_is_that_of_the_flowers_around_their_mean() -> None:
    make_deterministic(0)
    train, _ = iris.load()
    flower = torch.tensor([[5.0, 3.0, 4.0, 1.0]]).expand(200_000, 4)
    moved = iris.scatter(train)(flower).numpy()
    around = np.concatenate(
        [
            rows - rows.mean(axis=0)
            for label in range(3)
            for rows in [train.inputs[train.targets == label].numpy()]
        ]
    )
    expected = 1.5**2 * around.T @ around / (70 - 3)
    np.testing.assert_allclose(moved.mean(axis=0), flower[0], atol=0.01)
    np.testing.assert_allclose(np.cov(moved.T), expected, atol=0.01)


def test_training_keeps_the_floor_with_any_of_three_seeds() -> None:
    for seed in range(3):
        make_deterministic(seed)
        candidate = iris.train(msgspec.structs.replace(iris.PARAMETERS, seed=seed))
        assert evaluate(candidate.network, iris.load()[1]) == candidate.card.metrics
        assert candidate.card.metrics["accuracy"] >= 0.95


def test_examples_are_the_mean_of_each_class() -> None:
    make_deterministic(0)
    card = iris.train(msgspec.structs.replace(iris.PARAMETERS, epochs=1)).card
    train, _ = iris.load()
    for index, (example, label) in enumerate(zip(card.examples, iris.LABELS, strict=True)):
        assert example.name == f"average {label}"
        mean = train.inputs[train.targets == index].numpy().mean(axis=0)
        assert example.input == pytest.approx(mean, abs=0.0501)
