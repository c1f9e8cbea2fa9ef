"""Turn a trained network into files that are proven before anybody sees them."""

import hashlib
import io
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor, nn

from service import checksums
from service.card import (
    METADATA_KEY,
    PROBABILITY_TOLERANCE,
    VALUE_TOLERANCE,
    Card,
    Example,
    Feature,
    Image,
)
from service.errors import InvalidCard, InvalidPins
from training.errors import BelowFloor, Disagreement, NotSaved, Unsuitable
from training.loop import answers

# Who only trains, or writes a recipe, needs neither of the two: they are imported where used.
if TYPE_CHECKING:
    import onnx

REQUEST_FILE = "request.json"
PROOF_BATCHES = (1, 2, 33, 1000)  # rows run together when PyTorch and ONNX Runtime are compared


class Floor(Struct, frozen=True):
    """The worst held-out result a model may be saved with."""

    metric: str
    at_least: float = -math.inf
    at_most: float = math.inf


class Candidate(Struct, frozen=True, kw_only=True):
    """A trained network that is to be saved.

    rows: float32 (n, ...), raw units: real rows to prove it on, 1,000 where there are so many.
    request_example: the name of the card's example that `request.json` sends.
    files: what else is saved beside the model, by file name.
    """

    network: nn.Module
    card: Card
    rows: Tensor
    floor: Floor
    request_example: str
    files: dict[str, bytes] = {}


def export(candidate: Candidate, folder: Path) -> float:
    """Prove the candidate and write its files into the folder models/<name>/<version>.

    Returns by how much ONNX Runtime and PyTorch differ at most, see `difference`. Raises
    an ExportError, with nothing changed, when the result is below the floor, when ONNX Runtime
    answers differently, or when the files cannot be written.
    """
    name = folder.parent.name
    check_floor(candidate, name)
    network = candidate.network.cpu().eval()
    model = to_onnx(network, candidate.card, candidate.rows[:2])
    differ = prove(model, network, candidate.card, candidate.rows)
    save(folder, network, model, candidate.files | {REQUEST_FILE: request_body(candidate, name)})
    return differ


def check_floor(candidate: Candidate, name: str) -> None:
    """Raise BelowFloor unless the card's metric keeps the candidate's floor; NaN does not.

    Raises Unsuitable where the card has no such metric.
    """
    floor, metrics = candidate.floor, candidate.card.metrics
    if floor.metric not in metrics:
        raise Unsuitable(
            f"{name}: expected a floor for one of {', '.join(metrics)}, got {floor.metric!r}"
        )
    value = metrics[floor.metric]
    if not floor.at_least <= value <= floor.at_most:
        bounds = {"at least": floor.at_least, "at most": floor.at_most}
        limits = [f"{word} {limit}" for word, limit in bounds.items() if math.isfinite(limit)]
        raise BelowFloor(
            f"{name}: expected a held-out {floor.metric} of {' and '.join(limits)}, "
            f"got {value}: nothing was saved"
        )


def to_onnx(network: nn.Module, card: Card, rows: Tensor) -> bytes:
    """Write the network as one ONNX file with its card inside, free of this machine's paths.

    rows: float32 (2, ...); two, because the exporter may take a batch of one for a constant.
    """
    import onnx

    # It lists the extensions of torch that are not installed; none is used here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch 2.13.0 warns of its own use of a class it has deprecated.
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        program = torch.onnx.export(
            network,
            (rows,),
            input_names=["input"],
            output_names=list(outputs(card)),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise AssertionError(
            "torch.onnx.export without a file name returned no program. This is a bug."
        )
    model = program.model_proto
    strip_metadata(model)
    onnx.helper.set_model_props(model, {METADATA_KEY: card_text(card)})
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def card_text(card: Card) -> str:
    """Write the card as the service will read it. Raises Unsuitable where it could not."""
    try:
        text = card.to_json()
        Card.from_json(text)  # JSON has no NaN: it would be written as null
    except InvalidCard as error:
        raise Unsuitable(f"expected a card that the service can read, got: {error}") from error
    return text


def outputs(card: Card) -> dict[str, list[str | int]]:
    """Return the name and the shape of each of a model's outputs, in their order."""
    if card.task == "classification":
        return {"probabilities": ["batch", card.output_size]}
    ends: dict[str, list[str | int]] = {"value": ["batch", card.output_size]}
    return ends | ({"interval": ["batch", card.output_size, 2]} if card.interval else {})


def strip_metadata(model: "onnx.ModelProto") -> None:
    """Remove the exporter's notes: they hold stack traces with paths of this machine."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.initializer, *graph.value_info]
    for each in [model, graph, *graph.node, *values]:
        each.ClearField("metadata_props")
        each.ClearField("doc_string")


def prove(model: bytes, network: nn.Module, card: Card, rows: Tensor) -> float:
    """Raise Disagreement unless the file is valid and answers as the network does.

    rows: float32 (n, ...), raw units. They are run in batches of PROOF_BATCHES, the first of them,
    or all of them again and again where there are fewer. Returns the largest difference.
    """
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # neither library has a base class of its own
        raise Disagreement(f"the ONNX file is not valid: {error}") from error
    ends = [(end.name, end.shape) for end in (*session.get_inputs(), *session.get_outputs())]
    expected = [("input", ["batch", *rows.shape[1:]]), *outputs(card).items()]
    if ends != expected:
        raise Disagreement(f"expected the ONNX file to take and give {expected}, got {ends}")
    rows = rows[torch.arange(max(PROOF_BATCHES)) % len(rows)]  # (n, ...) -> (1000, ...)
    scales = [each.abs().mean().item() or 1.0 for each in answers(network, rows)]
    differences = []
    for size in PROOF_BATCHES:
        batch = rows[:size]
        runtime: list[NDArray[np.float32]] = session.run(None, {"input": batch.numpy()})
        for got, wanted, scale in zip(runtime, answers(network, batch), scales, strict=True):
            differences.append(difference(got, wanted.numpy(), card, scale))
    return max(differences)


def difference(
    runtime: NDArray[np.float32], pytorch: NDArray[np.float32], card: Card, scale: float = 1.0
) -> float:
    """Return by how much two answers, float32 (n, ...), differ at most.

    Absolute for probabilities, relative for values; to `scale`, the mean size of the answers,
    where a value is smaller. Raises Disagreement where it is more than the tolerance.
    """
    differs = np.abs(runtime - pytorch)
    tolerance = PROBABILITY_TOLERANCE
    if card.task == "regression":
        differs, tolerance = differs / np.maximum(np.abs(pytorch), scale), VALUE_TOLERANCE
    if not (differs <= tolerance).all():
        raise Disagreement(
            f"ONNX Runtime and PyTorch differ by {np.abs(runtime - pytorch).max():.3g} "
            f"in a batch of {len(pytorch)}"
        )
    return float(differs.max())


def request_body(candidate: Candidate, name: str) -> bytes:
    """Write a body for POST /predict from one of the card's examples, as a caller sends it."""
    card = candidate.card
    (example,) = [each for each in card.examples if each.name == candidate.request_example]
    instance = _pixels(example, card.image) if card.image else _named(example, card.features)
    return f'{{"model": {json.dumps(name)}, "instances": [\n{instance}\n]}}\n'.encode()


def _named(example: Example, features: list[Feature]) -> str:
    names = [feature.name for feature in features]
    return json.dumps(dict(zip(names, map(_shortest, example.numbers), strict=True)))


def _pixels(example: Example, image: Image) -> str:
    width = image.width * image.channels
    lines = [
        json.dumps([_shortest(value) for value in example.numbers[start : start + width]])
        for start in range(0, len(example.numbers), width)
    ]
    return "[" + ",\n".join(lines) + "]"


def _shortest(value: float) -> float:
    return int(value) if value.is_integer() else value


def save(folder: Path, network: nn.Module, model: bytes, others: Mapping[str, bytes]) -> None:
    """Write the files of one version beside models/<name>/<version>, then rename them into it.

    A new version appears complete. In an existing one the files are replaced one by one and
    model.onnx, which is all the service reads, last: a folder cannot be replaced in one step,
    and a service that watches it must never find the version gone. Its digest is listed in the
    folder of models. Raises NotSaved.
    """
    models_dir = folder.parent.parent
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".staged-") as private:
            staged = Path(private) / folder.name  # others may read it, unlike its parent
            staged.mkdir()
            weights = io.BytesIO()  # torch would report a full disk in its own way
            torch.save(network.state_dict(), weights)
            # In the order in which they are put in place.
            files = {"state_dict.pt": weights.getvalue(), **others, "model.onnx": model}
            for name, content in files.items():
                (staged / name).write_bytes(content)
            folder.parent.mkdir(exist_ok=True)
            with checksums.alone_in(folder.parent):
                _put_in_place(staged, folder, files)
                _approve(folder, model)
    except OSError as error:
        raise NotSaved(f"{folder}: cannot be written, nothing changed: {error.strerror}") from error


def _put_in_place(staged: Path, folder: Path, names: Iterable[str]) -> None:
    """Rename what is staged. Raises NotSaved where that fails between two files."""
    if not folder.exists():
        staged.rename(folder)
        return
    for name in names:
        try:
            (staged / name).replace(folder / name)
        except OSError as error:
            raise NotSaved(
                f"{folder}: {name} cannot be replaced: {error.strerror}; what was before it is new"
            ) from error


def _approve(folder: Path, model: bytes) -> None:
    """List the digest of a model that was saved. Raises NotSaved."""
    name = "/".join(folder.parts[-2:])
    sums = folder.parent.parent / checksums.FILE_NAME
    try:
        checksums.update(sums, {f"{name}/model.onnx": hashlib.sha256(model).hexdigest()})
    except (InvalidPins, OSError) as error:
        why = str(error)
        if isinstance(error, OSError):
            why = f"{sums.name} cannot be written: {error.strerror}"
        raise NotSaved(
            f"{folder}: its files are new, but {why}: list it with `python -m service pin {name}`"
        ) from error
