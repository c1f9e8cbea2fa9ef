"""One model, one request, one second: a row goes to the service, and NumPy says what is right."""

from pathlib import Path

import numpy as np
import pytest

from service.settings import Settings
from tests.support.toys import WEIGHTS, save_toy, serving


@pytest.mark.anyio
async def test_a_row_gets_the_answer_of_its_model(tmp_path: Path) -> None:
    save_toy(tmp_path)  # tmp_path/toy/1/model.onnx: softmax(row @ WEIGHTS)
    row = np.array([1.0, 2.0, 3.0, 4.0])

    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await client.post("/predict/toy", json={"instances": [row.tolist()]})

    powers = np.exp(row @ WEIGHTS)  # (4,) @ (4, 3) -> (3,)
    assert reply.status_code == 200
    (prediction,) = reply.json()["predictions"]
    np.testing.assert_allclose(prediction["probabilities"], powers / powers.sum(), atol=1e-6)
