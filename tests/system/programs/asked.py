"""What every program sends, and the answers that are right."""

import json
from typing import Any

import numpy as np

from tests.support.toys import body, toy_answer

JSON = "application/json"
ROWS = np.array([[1, 2, 3, 4], [4, 1, 0.5, 2]])
PREDICT = body("toy", ROWS.tolist())
LARGE = PREDICT.ljust(1_500_000)  # it does not come in one piece, and curl announces it
TENSOR = {"name": "input", "datatype": "FP32", "shape": ROWS.shape, "data": ROWS.tolist()}
INFER = json.dumps({"inputs": [TENSOR]}).encode()


def check_predictions(reply: Any) -> None:
    """Hold the reply to PREDICT, of /predict, against NumPy."""
    assert reply["model"] == "toy"
    got = [list(each["probabilities"].values()) for each in reply["predictions"]]
    np.testing.assert_allclose(got, toy_answer(ROWS), atol=1e-6)


def check_outputs(reply: Any) -> None:
    """Hold the reply to INFER, of /v2, against NumPy."""
    (output,) = reply["outputs"]
    assert output["shape"] == [2, 3]
    np.testing.assert_allclose(output["data"], toy_answer(ROWS).ravel(), atol=1e-6)
