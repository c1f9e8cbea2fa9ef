import msgspec
import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from training import moons
from training.errors import InvalidData
from training.loop import evaluate
from training.recipe import learnt


def test_210_points_to_train_on_and_90_held_out_in_equal_shares() -> None:
    train, held_out = moons.load()
    assert (train.inputs.shape, held_out.inputs.shape) == ((210, 2), (90, 2))
    assert train.targets.bincount().tolist() == [105, 105]
    assert held_out.targets.bincount().tolist() == [45, 45]


def test_every_point_is_in_one_part_with_its_own_label() -> None:
    parts = moons.load()
    rows = torch.cat([torch.cat([p.inputs, p.targets[:, None].float()], dim=1) for p in parts])
    points, labels = make_moons(300, noise=0.1, random_state=0)
    expected = np.column_stack([points, labels])
    got = rows[np.lexsort(rows.numpy().T)]
    np.testing.assert_allclose(got, expected[np.lexsort(expected.T)], atol=6e-5)


def test_other_points_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moons, "DATA_SEED", 1)
    sentence = "^moons of this version of scikit-learn: expected content with SHA-256 67072852"
    with pytest.raises(InvalidData, match=sentence):
        moons.load()


@pytest.mark.slow
def test_training_keeps_the_floor_with_any_of_three_seeds() -> None:
    train, held_out = moons.load()
    for seed in range(3):
        network, _ = learnt(
            moons.RECIPE, msgspec.structs.replace(moons.PARAMETERS, seed=seed), train
        )
        assert evaluate(network, held_out)["accuracy"] >= 0.97
