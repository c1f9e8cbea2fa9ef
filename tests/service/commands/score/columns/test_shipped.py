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
from service.commands.score.columns.shipped import shipped
from service.settings import Settings
from tests.support.foreign_models import linear, outside


@pytest.mark.parametrize("model", ["toy", "linear/2", "linear/2/model.onnx"])
def test_it_is_opened_from_its_files_alone(tmp_path: Path, models_dir: Path, model: str) -> None:
    folder = models_dir / "linear" / "2"
    folder.mkdir(parents=True)
    onnx.save(outside(linear(), folder, w="weights/w.bin"), folder / "model.onnx")
    settings = Settings(models_dir=models_dir, api_keys="secret")
    name = str(models_dir / model) if model.endswith(".onnx") else model
    here = Scorer(name, settings)
    sent = pickle.dumps(shipped(find(name, settings), here))
    shutil.rmtree(models_dir)

    there = pickle.loads(sent).open()
    random = np.random.default_rng(0)
    rows = random.uniform(0, 9, (700, 4)).astype(np.float32)
    table = pa.table({"rows": pa.FixedSizeListArray.from_arrays(rows.reshape(-1), 4)})
    assert there.rows == here.rows
    assert there(table).equals(here(table))
    assert b"secret" not in sent
