"""A model file, the rows it is asked, and what the library that trained it answers for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from onnx import ModelProto

DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}


class Case(NamedTuple):
    """A converted model; arrays have a row for each row that is asked.

    `inputs` are what the file takes, by name. `label` and `classes` are a classifier's; beside them
    stand `probabilities` (n, classes), or `scores` where the model has none. Of any other model
    `values` are all the numbers that it answers, flat: (n, numbers).
    """

    model: ModelProto | bytes
    inputs: dict[str, Any]
    label: Any = None
    classes: Any = None
    probabilities: Any = None
    scores: Any = None
    values: Any = None

    def save(self, models: Path, answers: Path, name: str) -> None:
        """Write MODELS/name/1/model.onnx and ANSWERS/name.json."""
        path = models / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        model = self.model
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = {
            each.name: {"datatype": DATATYPES[each.type], "data": plain(self.inputs[each.name])}
            for each in session.get_inputs()
        }
        said = {
            key: None if value is None else plain(value)
            for key, value in self._asdict().items()
            if key not in ("model", "inputs")
        }
        facts = {
            kind: [[each.name, each.type, each.shape] for each in described]
            for kind, described in (
                ("inputs", session.get_inputs()),
                ("outputs", session.get_outputs()),
            )
        }
        text = json.dumps({"inputs": inputs, **said, "file": facts}, indent=1)
        (answers / f"{name}.json").write_text(text)


Make = Callable[[], Case]
CASES: dict[str, Make] = {}


def case(make: Make) -> Make:
    """Let a function make a file of its own name."""
    CASES[make.__name__] = make
    return make


def plain(array: Any) -> list[Any]:
    """Return an array as lists of what JSON has; NaN stays."""
    made: list[Any] = np.asarray(array).tolist()
    return made


def classified(made: Any, inputs: dict[str, Any], model: Any, asked: Any) -> Case:
    """Return a case of a classifier with probabilities; `asked` is what the library takes."""
    return Case(
        made,
        inputs,
        label=np.ravel(model.predict(asked)),
        classes=model.classes_,
        probabilities=model.predict_proba(asked),
    )


def scored(made: Any, inputs: dict[str, Any], model: Any, asked: Any) -> Case:
    """Return a case of a classifier with decision values only."""
    scores = model.decision_function(asked)
    if scores.ndim == 1:  # of two classes: how much it is the second
        scores = np.stack([-scores, scores], axis=1)
    return Case(made, inputs, label=model.predict(asked), classes=model.classes_, scores=scores)


def valued(made: Any, inputs: dict[str, Any], model: Any, asked: Any) -> Case:
    """Return a case of a regressor."""
    return Case(made, inputs, values=model.predict(asked).reshape(len(asked), -1))
