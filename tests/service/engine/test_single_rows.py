"""What single rows of a trial show."""

from pathlib import Path

from service.engine.model import Model
from tests.support.toys import save_imputed, save_rectified, save_toy


def test_the_inputs_that_take_missing_values_are_found(tmp_path: Path) -> None:
    """Not where NaN means nothing to any operation: the answer of a network may be finite too."""
    imputed = Model.open(save_imputed(tmp_path))
    assert imputed.trial.takes_missing == ("age",)
    assert [each.takes_missing for each in imputed.columns] == [True, False]
    assert Model.open(save_rectified(tmp_path)).trial.takes_missing == ()
    assert Model.open(save_toy(tmp_path)).trial.takes_missing == ()


def test_what_a_person_says_of_missing_values_counts(tmp_path: Path) -> None:
    path = save_imputed(tmp_path)
    assert Model.open(path).takes_missing == {"age"}
    assert Model.open(path, missing="allow").takes_missing == {"age", "size"}
    assert Model.open(path, missing="refuse").takes_missing == frozenset()
