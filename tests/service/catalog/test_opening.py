from pathlib import Path

import pytest

from service.catalog.opening import open_tested, open_untested, where
from service.errors import ModelError, SelfTestFailed
from service.settings import Settings
from service.settings.verdicts import Verdicts
from tests.support.toys import save_dear, save_toy, toy_card


def test_a_model_is_opened_as_the_settings_say_and_tested(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card())
    settings = Settings(max_batch_size=7, batching=Verdicts("toy=requests"))
    batched, alone = (open_tested(path, name, settings, 1) for name in ("other", "toy"))
    assert (batched.is_batched, batched.largest_batch) == (True, 7)
    assert (alone.is_batched, alone.largest_batch) == (False, 1)


def test_one_that_fails_its_self_test_opens_untested(tmp_path: Path) -> None:
    path = save_toy(tmp_path, card=toy_card(), scale=2)
    with pytest.raises(SelfTestFailed, match=r"^example 'one': expected "):
        open_tested(path, "toy", Settings(), 1)
    assert open_untested(path, "toy", Settings(), 1).card == toy_card()


def test_what_cannot_be_read_is_told_before_onnx_runtime_sees_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^model\.onnx: cannot be read: No such file"):
        open_untested(tmp_path / "model.onnx", "x", Settings(), 1)


def test_where_a_model_runs_is_said(tmp_path: Path) -> None:
    fast = open_tested(save_toy(tmp_path), "toy", Settings(), 2)
    assert where(fast) == "in the event loop"
    path = save_dear(tmp_path, side=600)
    for threads, said in ((1, "1 core"), (2, "2 cores")):
        slow = open_tested(path, "dear", Settings(), threads)
        assert where(slow) == f"in a thread of its own, {said}"
