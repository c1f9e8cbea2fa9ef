"""Shows that the conversions of lies.toml lie; runs in the environment of requirements.txt.

Prints a JSON object: whether each still does.
"""

import os

os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from catboost import CatBoostRegressor
from data import FLOWERS, IS_BENIGN, KINDS, TUMOURS
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import InferenceError
from onnxconverter_common.float16 import convert_float_to_float16
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxruntime.quantization import quantize_dynamic
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.svm import SVC, LinearSVC
from torch import nn

OPSETS = {"": 20, "ai.onnx.ml": 3}
OPEN_ROWS = ({0: "batch"},)
LIES: dict[str, Callable[[], bool]] = {}


def lie(check: Callable[[], bool]) -> Callable[[], bool]:
    """Let a function check the lie of its own name."""
    LIES[check.__name__] = check
    return check


def run(model: ModelProto | bytes, rows: NDArray[Any]) -> list[Any]:
    """Return what ONNX Runtime answers for the rows of the only input."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    answers: list[Any] = session.run(None, {session.get_inputs()[0].name: rows})
    return answers


def opens(model: ModelProto) -> bool:
    ort.set_default_logger_severity(4)  # it is expected to fail
    try:
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # of a kind of ONNX Runtime's own
        return False
    return True


@lie
def lightgbm_zero_as_missing() -> bool:
    random = np.random.default_rng(0)
    rows = random.integers(-3, 4, (400, 3)).astype(np.float32)
    targets = np.where(rows[:, 0] == 0, 5, rows[:, 0]) + rows[:, 1]
    off = {}
    for setting in (False, True):
        model = LGBMRegressor(
            n_estimators=30, verbose=-1, random_state=0, n_jobs=1, zero_as_missing=setting
        ).fit(rows, targets)
        types = [("rows", FloatTensorType([None, 3]))]
        (got,) = run(convert_lightgbm(model, initial_types=types, target_opset=15), rows)
        off[setting] = np.abs(got[:, 0] - model.predict(rows)).max()
    return bool(off[True] > 1 and off[False] < 1e-5)


@lie
def catboost_several_targets() -> bool:
    model = CatBoostRegressor(
        iterations=5, loss_function="MultiRMSE", verbose=False, allow_writing_files=False
    ).fit(FLOWERS[:, 2:], FLOWERS[:, :2])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        model.save_model(str(path), format="onnx")
        made = onnx.load(path)
    operators = [node.op_type for node in made.graph.node]
    return operators == ["TreeEnsembleClassifier", "ZipMap"] and not opens(made)


@lie
def svc_two_classes_swapped() -> bool:
    rows = (TUMOURS - TUMOURS.mean(0)) / TUMOURS.std(0)
    model = SVC(random_state=0).fit(rows, IS_BENIGN)
    is_swapped = []
    for options in ({"zipmap": False}, {"zipmap": False, "raw_scores": True}):
        made = to_onnx(model, rows[:1], target_opset=OPSETS, options={id(model): options})
        label, scores = run(made, rows)
        assert np.array_equal(label, model.predict(rows))
        is_swapped.append(bool((scores.argmax(axis=1) != label).all()))
    return is_swapped == [True, False]


@lie
def margins_are_called_probabilities() -> bool:
    names, beyond = [], []
    for model in (LinearSVC(random_state=0), SVC(random_state=0)):
        model.fit(FLOWERS, KINDS)
        options = {id(model): {"zipmap": False}} if isinstance(model, SVC) else None
        made = to_onnx(model, FLOWERS[:1], target_opset=OPSETS, options=options)
        names.append(made.graph.output[1].name)
        scores = run(made, FLOWERS)[1]
        np.testing.assert_allclose(scores, model.decision_function(FLOWERS), atol=1e-3)
        beyond.append(bool(scores.min() < 0 and scores.max() > 1))
    return names == ["probabilities"] * 2 and beyond == [True, True]


@lie
def words_of_other_letters() -> bool:
    texts = np.array([["old trees 12"], ["schöne bäume"], ["straße nord"]], object)
    model = CountVectorizer().fit(texts[:, 0])
    types = [("text", StringTensorType([None, 1]))]
    made = to_onnx(model, initial_types=types, target_opset=OPSETS)
    lost = model.transform(texts[:, 0]).toarray().sum(axis=1) - run(made, texts)[0].sum(axis=1)
    return lost.tolist() == [0, 2, 1]


@lie
def gaussian_process_classifier() -> bool:
    model = GaussianProcessClassifier(optimizer=None).fit(FLOWERS[:60], KINDS[:60] == 0)
    made = to_onnx(model, FLOWERS[:1], target_opset=OPSETS)
    return not opens(made)


def network() -> ModelProto:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    return exported(layers, torch.rand(2, 4), OPEN_ROWS)


def exported(module: nn.Module, example: torch.Tensor, shapes: Any) -> ModelProto:
    program = torch.onnx.export(
        module.eval(), (example,), dynamo=True, verbose=False, dynamic_shapes=shapes
    )
    assert program is not None
    return program.model_proto


@lie
def float16_caps_weights() -> bool:
    weights = np.array([9999, 20000, -60000], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    half = convert_float_to_float16(model)
    return numpy_helper.to_array(half.graph.initializer[0]).tolist() == [10000, 10000, -10000]


def quantised(model: ModelProto) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, before)
        quantize_dynamic(before, after)
        return after.read_bytes()


@lie
def quantize_refuses_fresh_file() -> bool:
    try:
        quantised(network())
    except InferenceError:
        return True
    return False


@lie
def quantised_answers_by_neighbours() -> bool:
    model = network()
    del model.graph.value_info[:]
    made = quantised(model)
    rows = FLOWERS[:2] * np.float32([[1], [100]])
    alone, beside = run(made, rows[:1])[0][0], run(made, rows)[0][0]
    return bool(np.abs(alone - beside).max() > 0.05)


class Last(nn.Module):
    """The last state of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, series: torch.Tensor) -> Any:
        return self.lstm(series)[0][:, -1]


@lie
def second_lstm_export_fixes_the_length() -> bool:
    lengths = []
    for _ in range(2):
        shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time")},)
        made = exported(Last(), torch.rand(2, 7, 3), shapes)
        lengths.append(made.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    return lengths == [0, 7]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(json.dumps({name: check() for name, check in LIES.items()}))
