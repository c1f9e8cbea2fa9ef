"""The ways to ask the service for the rows of a case, each giving what the caller reads."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tritonclient.http as triton
from numpy.typing import NDArray

from service.batch import Scorer
from service.settings import Settings
from tests.support.processes import Process, environment

DTYPES: dict[str, Any] = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}
CLASSIFIED = ["label", "probability", "probabilities"]


class Asked(NamedTuple):
    """A file, the rows that it is asked, and what its library answers: case.py says what of."""

    name: str
    inputs: dict[str, dict[str, Any]]
    label: list[Any] | None
    classes: list[Any] | None
    probabilities: list[list[float]] | None
    scores: list[list[float]] | None
    values: list[list[float]] | None
    shapes: list[list[Any]]  # of the inputs, as the file has them
    outputs: list[str]

    @classmethod
    def load(cls, path: Path) -> "Asked":
        """Read what make.py wrote."""
        said = json.loads(path.read_text())
        file = said.pop("file")
        shapes = [shape for _, _, shape in file["inputs"]]
        return cls(path.stem, **said, shapes=shapes, outputs=[name for name, *_ in file["outputs"]])

    def rows(self, some: slice) -> "Asked":
        """Return the case with some of its rows only."""
        inputs = {name: each | {"data": each["data"][some]} for name, each in self.inputs.items()}
        cut = {
            field: rows[some]
            for field in ("label", "probabilities", "scores", "values")
            if (rows := getattr(self, field)) is not None
        }
        return self._replace(inputs=inputs, **cut)

    def requests(self) -> Iterator["Asked"]:
        """Yield what one run takes: all rows, or each of a file whose batch is fixed at 1."""
        if self.shapes[0][:1] != [1]:
            yield self
        else:
            yield from (self.rows(slice(place, place + 1)) for place in range(self.count))

    @property
    def count(self) -> int:
        """How many rows are asked."""
        return len(next(iter(self.inputs.values()))["data"])

    @property
    def is_table(self) -> bool:
        """Whether each input is a column."""
        return len(self.inputs) > 1

    @property
    def has_output_for_each_class(self) -> bool:
        """Whether skl2onnx wrote it with zipmap="columns"."""
        return bool(self.classes) and len(self.outputs) > 2

    @property
    def names(self) -> list[str]:
        """The names of the classes, as JSON and CSV have them."""
        return [str(each) for each in self.classes or []]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            name: np.array(each["data"], DTYPES[each["datatype"]])
            for name, each in self.inputs.items()
        }

    def instances(self, *, named: bool) -> list[Any]:
        """Return the rows as /predict takes them: those of a table named, or in order."""
        if not self.is_table:
            (only,) = self.inputs.values()
            return nulls(only["data"])
        columns = {name: [row[0] for row in each["data"]] for name, each in self.inputs.items()}
        rows = zip(*(nulls(each) for each in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) if named else list(row) for row in rows]


class Answer(NamedTuple):
    """What a caller read: a label for each row where there is one, and numbers (n, numbers)."""

    label: list[Any] | None
    numbers: NDArray[Any]


def nulls(value: Any) -> Any:
    """Return nested lists with null for NaN, as JSON has none."""
    if isinstance(value, list):
        return [nulls(each) for each in value]
    return None if value != value else value


def leaves(value: Any) -> list[Any]:
    """Return all that a prediction holds, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


def right(asked: Asked) -> Answer:
    """Return what the library answers."""
    numbers = asked.probabilities or asked.scores or asked.values
    return Answer(asked.label, np.array(numbers, np.float64))


def one_after_the_other(answers: Iterable[Answer]) -> Answer:
    """Return the answer to the rows of all requests."""
    every = list(answers)
    labels = [label for each in every for label in each.label or ()]
    return Answer(labels or None, np.concatenate([each.numbers for each in every]))


def predict(service: Process, asked: Asked, *, named: bool = True) -> Answer:
    """Ask /predict."""
    body = {"model": asked.name, "instances": asked.instances(named=named)}
    reply = service.post("/predict", json=body)
    assert reply.status_code == 200, reply.text
    rows = [_of_prediction(asked, each) for each in reply.json()["predictions"]]
    return _together(asked, rows)


def _of_prediction(asked: Asked, got: dict[str, Any]) -> list[Any]:
    """Return the label, if there are such, and the numbers of a prediction; check its form."""
    if asked.has_output_for_each_class and list(got) != CLASSIFIED:
        return leaves(got)  # what the file says: its outputs
    if asked.probabilities:
        assert list(got) == CLASSIFIED, got
        assert list(got["probabilities"]) == asked.names
        probabilities = list(got["probabilities"].values())
        assert got["probability"] == max(probabilities)
        return [got["label"], *probabilities]
    if asked.scores:
        assert list(got) == ["label", "scores"], got
        assert not isinstance(got["label"], list), got
        return [got["label"], *leaves(got["scores"])]
    return leaves(got)


def _together(asked: Asked, rows: list[list[Any]]) -> Answer:
    if asked.label is None:
        return Answer(None, np.array(rows, np.float64))
    numbers = np.array([row[1:] for row in rows], np.float64)
    return Answer([row[0] for row in rows], numbers)


def v2_json(service: Process, asked: Asked) -> Answer:
    """Ask /v2 in JSON, without a client, as clients write NaN as no JSON has it."""
    return one_after_the_other(_v2_json(service, each) for each in asked.requests())


def _v2_json(service: Process, asked: Asked) -> Answer:
    inputs = [
        {
            "name": name,
            "datatype": each["datatype"],
            "shape": np.shape(each["data"]),
            "data": nulls(leaves(each["data"])),
        }
        for name, each in asked.inputs.items()
    ]
    reply = service.post(f"/v2/models/{asked.name}/infer", json={"inputs": inputs})
    assert reply.status_code == 200, reply.text
    arrays = [
        np.array(each["data"], DTYPES[each["datatype"]]).reshape(each["shape"])
        for each in reply.json()["outputs"]
    ]
    return _of_outputs(asked, arrays)


def v2_binary(service: Process, asked: Asked) -> Answer:
    """Ask /v2 with Triton's client, in binary both ways."""
    return one_after_the_other(_v2_binary(service, each) for each in asked.requests())


def _v2_binary(service: Process, asked: Asked) -> Answer:
    inputs = []
    for name, array in asked.arrays.items():
        given = triton.InferInput(name, list(array.shape), asked.inputs[name]["datatype"])
        inputs.append(given.set_data_from_numpy(array, binary_data=True))
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        try:
            answer = client.infer(asked.name, inputs)
        except triton.InferenceServerException as error:
            raise AssertionError(str(error)) from None
        names = [each["name"] for each in answer.get_response()["outputs"]]
        return _of_outputs(asked, [answer.as_numpy(name) for name in names])


def _of_outputs(asked: Asked, arrays: list[NDArray[Any]]) -> Answer:
    """Return the label among the outputs, and the numbers of the others, side by side."""
    flat = [each.reshape(len(each), -1) for each in arrays]
    numbers = [each for each in flat if asked.label is None or each.dtype.kind == "f"]
    labels = [each for each in flat if each.dtype.kind != "f"]
    assert numbers, "no output of numbers"
    joined = np.concatenate(numbers, axis=1).astype(np.float64)
    if asked.label is None:
        return Answer(None, joined)
    assert len(labels) == 1, f"{len(labels)} outputs of labels"
    text = [each.decode() if isinstance(each, bytes) else each for each in labels[0][:, 0].tolist()]
    return Answer(text, joined)


def scorer(models: Path, asked: Asked) -> Answer:
    """Let a `Scorer` answer a table: a column for each input of one, else one column of lists."""
    arrays = {
        name: pa.array(each["data"] if not asked.is_table else [row[0] for row in each["data"]])
        for name, each in asked.inputs.items()
    }
    answers = Scorer(asked.name, Settings(models_dir=models))(pa.table(arrays))
    assert answers["error"].null_count == answers.num_rows, answers["error"].unique()
    columns = answers.drop_columns("error")
    if asked.probabilities and not (
        asked.has_output_for_each_class and columns.schema.names[:2] != CLASSIFIED[:2]
    ):
        assert columns.schema.names == [*CLASSIFIED[:2], *asked.names]
        columns = columns.drop_columns("probability")
    return _together(asked, [leaves(list(row.values())) for row in columns.to_pylist()])


def score(models: Path, asked: Asked, folder: Path) -> Answer:
    """Let `python -m service score` answer a file; images come as JSON Lines, the others as CSV."""
    is_image = any(np.ndim(each["data"]) > 2 for each in asked.inputs.values())
    given = folder / ("rows.jsonl" if is_image else "rows.csv")
    given.write_text(_json_lines(asked) if is_image else _csv(asked))
    answers = folder / f"answers{given.suffix}"
    done = subprocess.run(
        [sys.executable, "-m", "service", "score", asked.name, given, answers],
        env=environment(models_dir=models),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    if is_image:
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
        return _together(asked, [leaves(each)[1:] for each in lines])
    with answers.open(newline="") as file:
        head, *rows = csv.reader(file)
    return _together(asked, [row[1:] for row in _of_columns(asked, head, rows)])


def _csv(asked: Asked) -> str:
    """Return the rows as CSV: with a header where the file has columns or a text."""
    text = io.StringIO()
    writer = csv.writer(text)
    texts = any(each["datatype"] == "BYTES" for each in asked.inputs.values())
    if asked.is_table or texts:
        writer.writerow(asked.inputs)
    for row in asked.instances(named=False):
        fields = row if isinstance(row, list) else [row]
        writer.writerow(str(each).lower() if isinstance(each, bool) else each for each in fields)
    return text.getvalue()


def _json_lines(asked: Asked) -> str:
    return "".join(json.dumps(each) + "\n" for each in asked.instances(named=False))


def _of_columns(asked: Asked, head: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Check the header of answers; return them without the column `probability`."""
    if asked.has_output_for_each_class and head[1] != "label":
        return rows
    if asked.probabilities:
        assert head == ["line", "label", "probability", *asked.names], head
        return [[*row[:2], *row[3:]] for row in rows]
    if asked.scores:
        assert head[1] == "label", head
        assert not any("probabilit" in each for each in head), head
    return rows


def of_runtime(asked: Asked, outputs: list[Any]) -> Answer:
    """Return what ONNX Runtime alone answers; its maps and sequences become arrays."""
    arrays: list[NDArray[Any]] = []
    for output in outputs:
        if not isinstance(output, list):
            arrays.append(output)
        elif isinstance(output[0], dict):  # a map for each row, of a number for each class
            arrays.append(np.array([list(each.values()) for each in output], np.float32))
        else:  # a tensor for each target
            arrays += output
    return _of_outputs(asked, arrays)
