"""A model that is sent is the same model, where nothing of it is on the disk."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest

from service.batch import Scorer
from service.catalog.place import find
from service.commands.pin import pin
from service.commands.score.columns.shipped import shipped
from service.errors import CannotScore
from service.settings import Settings
from tests.support.foreign_models import linear, outside
from tests.support.toys import save_toy, toy_card


@pytest.mark.parametrize("model", ["toy", "linear/2", "linear/2/model.onnx"])
def test_it_is_opened_from_its_files_alone(tmp_path: Path, models_dir: Path, model: str) -> None:
    folder = models_dir / "linear" / "2"
    folder.mkdir(parents=True)
    onnx.save(outside(linear(), folder, w="weights/w.bin"), folder / "model.onnx")
    sums = models_dir.parent / "approved"
    pin([], Settings(models_dir=models_dir, pins_file=sums), only_check=False)
    chosen = {"pins": "required", "pins_file": sums} if model != "toy" else {}
    settings = Settings(models_dir=models_dir, api_keys="secret", **chosen)
    name = str(models_dir / model) if model.endswith(".onnx") else model
    here = Scorer(name, settings)
    sent = pickle.dumps(shipped(find(name, settings), here))
    shutil.rmtree(models_dir)
    sums.unlink()

    there = pickle.loads(sent).open()
    random = np.random.default_rng(0)
    rows = random.uniform(0, 9, (700, 4)).astype(np.float32)
    table = pa.table({"rows": pa.FixedSizeListArray.from_arrays(rows.reshape(-1), 4)})
    assert there.rows == here.rows
    assert there(table).equals(here(table))
    assert b"secret" not in sent


def test_another_model_than_was_opened_is_not_sent(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir)
    here = Scorer("toy", settings)
    save_toy(models_dir, card=toy_card(), scale=2)
    with pytest.raises(CannotScore, match=r"^toy/1: model\.onnx was changed since it was opened$"):
        shipped(find("toy", settings), here)
