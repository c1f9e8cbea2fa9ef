import json
import math
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from service.card import METADATA_KEY, Card, Image, Interval
from training.errors import BelowFloor, Disagreement, NotSaved, Unsuitable
from training.export import (
    Candidate,
    Floor,
    card_text,
    check_floor,
    difference,
    export,
    prove,
    request_body,
    save,
    to_onnx,
)

FILES = ["model.onnx", "request.json", "state_dict.pt"]


def changed(candidate: Candidate, **fields: object) -> Candidate:
    return msgspec.structs.replace(candidate, **fields)


def with_metric(candidate: Candidate, name: str, value: float) -> Candidate:
    card = msgspec.structs.replace(candidate.card, metrics={name: value})
    return changed(candidate, card=card)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(model: bytes, rows: np.ndarray) -> np.ndarray:
    answers: np.ndarray = onnxruntime.InferenceSession(model).run(None, {"input": rows})[0]
    return answers


@contextmanager
def full_disk(after_bytes: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: the disk is full, as far as a writer can see."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def exported(classifier: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models, with the classifier in it. Not to be changed."""
    models_dir = tmp_path_factory.mktemp("models")
    export(classifier, models_dir / "clouds/1")
    return models_dir


@pytest.fixture(scope="module")
def model(exported: Path) -> bytes:
    """The classifier's ONNX file."""
    return (exported / "clouds/1/model.onnx").read_bytes()


@pytest.fixture(scope="module")
def regression_model(regressor: Candidate) -> bytes:
    return to_onnx(regressor.network, regressor.card, regressor.rows[:2])


# What is written


@pytest.mark.slow
def test_export_writes_three_files_a_list_and_nothing_else(exported: Path) -> None:
    assert sorted(contents(exported)) == ["SHA256SUMS", *(f"clouds/1/{name}" for name in FILES)]
    assert sorted(path.name for path in exported.iterdir()) == ["SHA256SUMS", "clouds"]


def test_file_answers_raw_units_with_probabilities(classifier: Candidate, model: bytes) -> None:
    answers = run(model, classifier.rows.numpy())
    np.testing.assert_allclose(answers, classifier.network(classifier.rows).detach(), atol=1e-6)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


def test_file_answers_raw_units_with_values(regressor: Candidate, regression_model: bytes) -> None:
    answers = run(regression_model, regressor.rows.numpy())
    np.testing.assert_allclose(answers, regressor.network(regressor.rows).detach(), rtol=1e-4)
    assert answers.std() > 10  # metres, not standard deviations


def test_state_dict_loads_safely_and_is_the_network(classifier: Candidate, exported: Path) -> None:
    saved = torch.load(exported / "clouds/1/state_dict.pt", weights_only=True)
    assert list(saved) == list(classifier.network.state_dict())
    for name, tensor in classifier.network.state_dict().items():
        assert torch.equal(saved[name], tensor)


def test_card_travels_in_the_file(classifier: Candidate, model: bytes) -> None:
    (entry,) = onnx.load_from_string(model).metadata_props
    assert entry.key == METADATA_KEY
    assert Card.from_json(entry.value) == classifier.card


def test_graph_has_one_input_and_one_output_with_an_open_batch(
    model: bytes, regression_model: bytes
) -> None:
    for content, output in (
        (model, ("probabilities", ["batch", 3], "tensor(float)")),
        (regression_model, ("value", ["batch", 1], "tensor(float)")),
    ):
        session = onnxruntime.InferenceSession(content)
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        assert (taken.name, taken.shape, taken.type) == ("input", ["batch", 2], "tensor(float)")
        assert (given.name, given.shape, given.type) == output


def test_files_hold_no_path_of_this_machine(exported: Path) -> None:
    paths = [Path.cwd(), Path.home(), exported, tempfile.gettempdir(), sys.prefix]
    for name, content in contents(exported).items():
        for path in [*map(str, paths), "site-packages", ".py"]:
            assert path.encode() not in content, f"{path} in {name}"


@pytest.mark.slow
def test_exported_again_the_bytes_are_equal(
    classifier: Candidate, exported: Path, tmp_path: Path
) -> None:
    export(classifier, tmp_path / "clouds/1")
    assert contents(tmp_path) == contents(exported)


def test_request_sends_the_example_by_name(exported: Path) -> None:
    body = (exported / "clouds/1/request.json").read_text()
    assert json.loads(body) == {"model": "clouds", "instances": [{"x": 40, "y": 0}]}


def test_request_sends_an_image_line_by_line(classifier: Candidate) -> None:
    image = Image(height=2, width=1, channels=1, preparation="none")
    card = msgspec.structs.replace(classifier.card, features=[], image=image)
    assert request_body(changed(classifier, card=card), "clouds") == (
        b'{"model": "clouds", "instances": [\n[[40],\n[0]]\n]}\n'
    )


class Bounded(nn.Module):
    """A regression network that adds an interval to its values: so much to either side."""

    def __init__(self, network: nn.Module, reach: float) -> None:
        super().__init__()
        self.network, self.reach = network, reach

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        value = self.network(rows)
        return value, torch.stack([value - self.reach, value + self.reach], dim=2)


@pytest.fixture
def bounded(regressor: Candidate) -> Candidate:
    card = msgspec.structs.replace(
        regressor.card,
        interval=Interval(coverage=0.9),
        examples=[
            msgspec.structs.replace(each, interval=[each.output[0] - 1000, each.output[0] + 1000])
            for each in regressor.card.examples
        ],
    )
    return changed(regressor, card=card, network=Bounded(regressor.network, 1000.0).eval())


@pytest.mark.slow
def test_interval_is_a_second_output(bounded: Candidate, tmp_path: Path) -> None:
    export(bounded, tmp_path / "plane/1")
    session = onnxruntime.InferenceSession(tmp_path / "plane/1/model.onnx")
    assert [(given.name, given.shape) for given in session.get_outputs()] == [
        ("value", ["batch", 1]),
        ("interval", ["batch", 1, 2]),
    ]
    value, interval = session.run(None, {"input": bounded.rows.numpy()})
    np.testing.assert_allclose(interval, np.stack([value - 1000, value + 1000], axis=2))


@pytest.mark.slow
def test_interval_that_differs_is_refused(bounded: Candidate, regressor: Candidate) -> None:
    model = to_onnx(bounded.network, bounded.card, bounded.rows[:2])
    prove(model, bounded.network, bounded.card, bounded.rows)
    other = Bounded(regressor.network, 1500.0)
    with pytest.raises(Disagreement, match=r"differ by 500 in a batch of 1$"):
        prove(model, other, bounded.card, bounded.rows)


# What is refused


@pytest.mark.parametrize(
    ("metric", "value", "sentence"),
    [
        ("accuracy", 0.8999, "expected a held-out accuracy of at least 0.9, got 0.8999"),
        ("accuracy", float("nan"), "expected a held-out accuracy of at least 0.9, got nan"),
        ("rmse", 3.61, "expected a held-out rmse of at most 3.6, got 3.61"),
        ("rmse", float("nan"), "expected a held-out rmse of at most 3.6, got nan"),
    ],
)
def test_below_the_floor_nothing_is_written(
    metric: str, value: float, sentence: str, classifier: Candidate, tmp_path: Path
) -> None:
    floor = Floor(metric, at_least=0.9) if metric == "accuracy" else Floor(metric, at_most=3.6)
    poor = with_metric(changed(classifier, floor=floor), metric, value)
    with pytest.raises(BelowFloor, match=f"clouds: {sentence}: nothing was saved"):
        export(poor, tmp_path / "models/clouds/1")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("floor", "metric", "value"),
    [
        (Floor("accuracy", at_least=0.9), "accuracy", 0.9),
        (Floor("rmse", at_most=3.6), "rmse", 3.6),
    ],
)
def test_floor_itself_is_good_enough(
    floor: Floor, metric: str, value: float, classifier: Candidate
) -> None:
    check_floor(with_metric(changed(classifier, floor=floor), metric, value), "clouds")


def test_floor_of_an_unknown_metric_is_named(classifier: Candidate, tmp_path: Path) -> None:
    sentence = "clouds: expected a floor for one of accuracy, got 'rmse'"
    with pytest.raises(Unsuitable, match=sentence):
        export(changed(classifier, floor=Floor("rmse", at_most=1)), tmp_path / "models/clouds/1")
    assert not (tmp_path / "models").exists()


def test_floor_with_two_bounds_names_both(classifier: Candidate) -> None:
    floor = Floor("accuracy", at_least=0.1, at_most=0.2)
    good = with_metric(changed(classifier, floor=floor), "accuracy", 1.0)
    with pytest.raises(BelowFloor, match=r"accuracy of at least 0\.1 and at most 0\.2, got 1"):
        check_floor(good, "clouds")


def test_card_that_the_service_could_not_read_is_not_saved(classifier: Candidate) -> None:
    metrics = classifier.card.metrics | {"r2": -math.inf}  # JSON has no infinity
    card = msgspec.structs.replace(classifier.card, metrics=metrics)
    with pytest.raises(Unsuitable, match="expected a card that the service can read, got: "):
        card_text(card)


@pytest.mark.slow
def test_network_that_changes_in_the_export_is_not_saved(
    classifier: Candidate, tmp_path: Path
) -> None:
    class Changing(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = classifier.network(rows)
            return answers.flip(1) if torch.compiler.is_exporting() else answers

    with pytest.raises(Disagreement, match="differ by"):
        export(changed(classifier, network=Changing()), tmp_path / "models/clouds/1")
    assert not (tmp_path / "models").exists()


def test_file_of_another_network_is_refused(classifier: Candidate, model: bytes) -> None:
    prove(model, classifier.network, classifier.card, classifier.rows)
    other = nn.Sequential(classifier.network, nn.Hardtanh(0.001, 0.9))
    with pytest.raises(Disagreement, match=r"differ by [\d.]+ in a batch of 1$"):
        prove(model, other, classifier.card, classifier.rows)


def test_difference_in_a_later_row_is_found(classifier: Candidate, model: bytes) -> None:
    class Faulty(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = classifier.network(rows)
            answers[32:] += 0.001
            return answers

    with pytest.raises(Disagreement, match=r"differ by 0\.001 in a batch of 33$"):
        prove(model, Faulty(), classifier.card, classifier.rows)


def test_probabilities_are_compared_absolutely_and_values_relatively(
    classifier: Candidate, regressor: Candidate
) -> None:
    ones = np.ones((2, 3), np.float32)
    assert difference(ones + 9e-6, ones, classifier.card) == pytest.approx(9e-6, rel=0.01)
    hundreds = ones * 100
    assert difference(hundreds + 0.009, hundreds, regressor.card) == pytest.approx(9e-5, rel=0.01)
    for off, pytorch, card in (
        (2e-5, ones, classifier.card),
        (0.011, hundreds, regressor.card),
        (np.nan, ones, classifier.card),
    ):
        with pytest.raises(Disagreement):
            difference(pytorch + np.float32(off), pytorch, card)


def test_value_near_zero_is_compared_with_the_size_of_the_others(regressor: Candidate) -> None:
    values = np.array([[0.0], [100.0]], np.float32)
    assert difference(values + 0.005, values, regressor.card, scale=50.0) == pytest.approx(
        1e-4, rel=0.01
    )
    with pytest.raises(Disagreement):
        difference(values + 0.006, values, regressor.card, scale=50.0)


def test_batch_that_is_not_open_is_refused(classifier: Candidate, model: bytes) -> None:
    closed = onnx.load_from_string(model)
    for end in (*closed.graph.input, *closed.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 2
    del closed.graph.value_info[:]
    with pytest.raises(Disagreement, match=r"to take and give \[\('input', \['batch', 2\]\)"):
        prove(closed.SerializeToString(), classifier.network, classifier.card, classifier.rows)


def test_graph_that_is_not_onnx_is_refused(classifier: Candidate) -> None:
    end = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["input"], ["x"])], "g", [end], []
    )
    model = helper.make_model(graph).SerializeToString()
    with pytest.raises(Disagreement, match=r"the ONNX file is not valid: .*NoSuchOperator"):
        prove(model, classifier.network, classifier.card, classifier.rows)


# What stays


def test_others_may_read_what_is_saved(classifier: Candidate, tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        save(tmp_path / "clouds/1", classifier.network, b"new", {"request.json": b"{}"})
    finally:
        os.umask(umask)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    files = [*FILES, "SHA256SUMS"]
    assert modes == {"clouds": "0o755", "1": "0o755"} | dict.fromkeys(files, "0o644")


def test_new_model_replaces_the_old_one_and_no_other_file(
    classifier: Candidate, tmp_path: Path
) -> None:
    folder = tmp_path / "clouds/1"
    save(folder, classifier.network, b"old", {"request.json": b"{}"})
    (folder / "loss.png").write_bytes(b"kept")
    save(folder, nn.Linear(1, 1), b"new", {"request.json": b"[]"})
    after = contents(folder)
    assert sorted(after) == sorted([*FILES, "loss.png"])
    assert (after["model.onnx"], after["request.json"]) == (b"new", b"[]")
    assert set(torch.load(folder / "state_dict.pt", weights_only=True)) == {"weight", "bias"}
    assert after["loss.png"] == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "clouds"]


@pytest.mark.parametrize("room", [0, 1000, 5000], ids=["immediately", "midway", "at the end"])
def test_full_disk_keeps_the_old_model(room: int, classifier: Candidate, tmp_path: Path) -> None:
    folder = tmp_path / "clouds/1"
    save(folder, classifier.network, b"old", {"request.json": b"{}"})
    before = contents(tmp_path)
    with (
        full_disk(room),
        pytest.raises(NotSaved, match="nothing changed: File too large") as caught,
    ):
        save(folder, classifier.network, b"new" * 5000, {"request.json": b"[]"})
    assert str(caught.value).startswith(f"{folder}: cannot be written")
    assert contents(tmp_path) == before


def test_file_that_cannot_be_replaced_is_named(classifier: Candidate, tmp_path: Path) -> None:
    folder = tmp_path / "clouds/1"
    (folder / "model.onnx").mkdir(parents=True)
    with pytest.raises(NotSaved, match=r"model\.onnx cannot be replaced: .*; what was before it"):
        save(folder, classifier.network, b"new", {})


def test_what_is_saved_is_listed_and_other_lines_stay(
    classifier: Candidate, tmp_path: Path
) -> None:
    other = f"{'0' * 64}  other/1/model.onnx\n"
    (tmp_path / "SHA256SUMS").write_text(other)
    for content in (b"old", b"new"):
        save(tmp_path / "clouds/1", classifier.network, content, {})
        line = f"{sha256(content).hexdigest()}  clouds/1/model.onnx\n"
        assert (tmp_path / "SHA256SUMS").read_text() == other + line


def test_a_list_that_cannot_be_written_is_told(classifier: Candidate, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").mkdir()
    says = r"clouds/1: its files are new, but SHA256SUMS cannot be written: .*service pin clouds/1`"
    with pytest.raises(NotSaved, match=says):
        save(tmp_path / "clouds/1", classifier.network, b"new", {})


def test_full_disk_leaves_no_new_model(classifier: Candidate, tmp_path: Path) -> None:
    with full_disk(5000), pytest.raises(NotSaved):
        save(tmp_path / "clouds/1", classifier.network, b"new" * 5000, {"request.json": b"[]"})
    assert list(tmp_path.iterdir()) == []


def test_models_folder_that_is_a_file_is_named(classifier: Candidate, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(NotSaved, match=r"models/clouds/1: cannot be written, .*: File exists"):
        save(tmp_path / "models/clouds/1", classifier.network, b"new", {"request.json": b"{}"})
