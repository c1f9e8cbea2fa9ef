import msgspec
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils import Bunch

from training import iris
from training.comparison import classical
from training.errors import InvalidData
from training.loop import evaluate, make_deterministic
from training.recipe import train


def test_70_flowers_to_train_on_and_80_held_out_in_equal_shares() -> None:
    rows, held_out = iris.load()
    assert (rows.inputs.shape, held_out.inputs.shape) == ((70, 4), (80, 4))
    assert sorted(rows.targets.bincount().tolist()) == [23, 23, 24]
    assert sorted(held_out.targets.bincount().tolist()) == [26, 27, 27]
    assert rows.inputs.dtype == torch.float32


def test_every_flower_is_in_one_part_with_its_own_label() -> None:
    parts = iris.load()
    flowers = load_iris()
    rows = torch.cat([torch.cat([p.inputs, p.targets[:, None].float()], dim=1) for p in parts])
    expected = np.column_stack([flowers.data, flowers.target]).astype(np.float32)
    assert sorted(rows.tolist()) == sorted(expected.tolist())


def test_other_splits_are_30_of_70_and_80() -> None:
    splits = iris.splits()
    assert len(splits) == 30
    for train_rows, held_out in splits:
        assert (len(train_rows.inputs), len(held_out.inputs)) == (70, 80)
    right = [classical(LinearDiscriminantAnalysis(), *split) for split in splits]
    assert np.mean(right) == pytest.approx(0.9738, abs=0.0005)  # measured apart from this code


def test_labels_are_in_scikit_learns_order() -> None:
    assert list(load_iris().target_names) == iris.LABELS


def test_other_flowers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = load_iris

    def as_at_uci() -> Bunch:
        flowers = own()
        flowers.data[34, 3] = 0.1  # one of the two errors there
        return flowers

    monkeypatch.setattr("sklearn.datasets.load_iris", as_at_uci)
    sentence = "^iris of this version of scikit-learn: expected content with SHA-256 aa06b8"
    with pytest.raises(InvalidData, match=sentence):
        iris.load()


def test_whitened_flowers_of_one_kind_scatter_by_1_uncorrelated() -> None:
    rows, _ = iris.load()
    whitened = iris.Whiten(rows)(rows.inputs).double().numpy()
    kinds = [whitened[rows.targets == kind] for kind in range(3)]
    around = np.concatenate([kind - kind.mean(axis=0) for kind in kinds])
    np.testing.assert_allclose(around.T @ around / (70 - 3), np.eye(4), atol=1e-4)
    np.testing.assert_allclose(whitened.mean(axis=0), np.zeros(4), atol=1e-5)


def test_each_flower_is_moved_differently_for_each_member() -> None:
    make_deterministic(0)
    moved = iris.scatter(torch.full((40_000, 4), 5.0), 0.5)
    assert moved.shape == (iris.MEMBERS, 40_000, 4)
    assert moved.mean(dim=(0, 1)).tolist() == pytest.approx([5.0] * 4, abs=0.01)
    assert moved.std(dim=(0, 1)).tolist() == pytest.approx([iris.SCATTER] * 4, abs=0.01)
    assert abs(torch.corrcoef(moved[:2, :, 0])[0, 1]) < 0.02


def test_answer_is_the_mean_of_the_members_probabilities() -> None:
    logits = torch.randn(5, 7, 3)
    powers = np.exp(logits.numpy())
    expected = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(iris.MeanProbabilities()(logits), expected, atol=1e-6)


def test_loss_is_the_cross_entropy_of_each_member() -> None:
    logits, targets = torch.randn(5, 7, 3), torch.arange(7) % 3
    expected = [torch.nn.functional.cross_entropy(each, targets).item() for each in logits]
    assert iris.cross_entropies(logits, targets).tolist() == pytest.approx(expected)


@pytest.mark.slow
def test_training_keeps_the_floor_with_another_seed() -> None:
    candidate = train(iris.RECIPE, msgspec.structs.replace(iris.PARAMETERS, seed=1))
    assert evaluate(candidate.network, iris.load()[1]) == candidate.card.metrics
    assert candidate.card.metrics["accuracy"] >= 0.95


def test_examples_are_the_mean_of_each_class() -> None:
    card = train(iris.RECIPE, msgspec.structs.replace(iris.PARAMETERS, epochs=1)).card
    rows, _ = iris.load()
    for index, (example, label) in enumerate(zip(card.examples, iris.LABELS, strict=True)):
        assert example.name == f"average {label}"
        mean = rows.inputs[rows.targets == index].numpy().mean(axis=0)
        assert example.input == pytest.approx(mean, abs=0.0501)
