"""`card`: describe a model that was made elsewhere, in a copy of its file.

    python -m service card wine.onnx --examples wine.csv --output models/wine/1/model.onnx

The card has what rows of a CSV file show: the names of the columns, their ranges and common values,
and the first rows as examples, with what the model answers to them. So the copy is tested when it
is opened, and the pages, the OpenAPI document and the metrics say what its columns mean.
"""

import csv
import hashlib
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from service.card import METADATA_KEY, Card, Dataset, Example, Feature, Target, Value
from service.catalog.opening import open_tested
from service.catalog.pins import Approved, approved, of_path
from service.catalog.place import file_at, find, sentence
from service.commands.terminal import Stdout
from service.engine.columns import Column
from service.engine.file import names_of
from service.engine.model import Model
from service.engine.protobuf import message
from service.engine.providers import RUNTIME_VERSION
from service.errors import CannotDescribe, InferenceFailed, InvalidInput, ModelError, UnknownValue
from service.formats.csv_cells import value_of, values_of
from service.formats.json_rows import row
from service.inference import run_rows
from service.settings import Settings, machine

EXAMPLES = 5  # rows that become examples
MOST_VALUES = 20  # of a text that the card names
_METADATA = 14  # the field of ModelProto that has the entries of metadata (onnx.proto)


class Job(Struct, frozen=True, kw_only=True):
    """What the command line says."""

    model: str
    examples: Path  # CSV
    output: Path | None
    columns: list[str]
    labels: list[str]
    units: list[str]
    description: str
    force: bool


def write_card(job: Job, settings: Settings) -> int:
    """Write the copy; return the exit status.

    Raises CannotDescribe, and what `find` and `Stdout.write` raise.
    """
    place = find(job.model, settings)
    target = job.output or place.path.with_suffix(".card.onnx")
    if target.suffix != ".onnx" or (target.exists() and not target.is_file()):
        raise CannotDescribe(f"--output: expected a file that ends in .onnx, got {target}")
    if target.exists() and not job.force:
        raise CannotDescribe(f"{target}: is there already; --force replaces it")
    listed = approved(settings)
    try:
        threads = machine.available().threads(1)
        model = open_tested(place.path, place.model, settings, threads, pins=listed)
        card = describe(model, job)
        save(place.path, card, target, settings)
        written = file_at(target, target.name)
    except (ModelError, InvalidInput) as error:
        why = sentence(place, error) if isinstance(error, ModelError) else str(error)
        raise CannotDescribe(why) from error
    except OSError as error:
        raise CannotDescribe(f"{error.filename or target}: {error.strerror}") from error
    told = f"{len(card.features)} columns, {len(card.examples)} examples"
    Stdout().line(f"{target}: {card.task}, {told}; they answer as the card says")
    own = model.classifier.names if model.classifier else []
    if own and own != card.labels:
        renamed = ", ".join(f"{a} is now {b}" for a, b in zip(own, card.labels, strict=True))
        Stdout().line(f"the file has labels of its own: {renamed}")
    pins = of_path(listed, target, settings.models_dir) if listed.is_there else None
    if pins and pins.model and pins.digests.get(target.name) != written.sha256:
        Stdout().line(f"{pins.source} does not list it as it is: {pins.way}")
    return 0


def describe(model: Model, job: Job) -> Card:
    """Return the card of a model, by what the rows of a file show.

    Raises CannotDescribe, InvalidInput with the place of what does not fit, OSError.
    """
    if model.card:
        raise CannotDescribe(f"{job.model}: it has a card already")
    if model.why_no_rows or model.has_open_rows or len(model.row_dims) != 1:
        why = model.why_no_rows or f"its rows have the shape {model.row_dims}, -1 is open"
        raise CannotDescribe(f"{job.model}: expected a model of rows of columns, but {why}")
    names, rows = _read(model, job)
    columns = model.columns or [
        Column(name, model.row_dtype, model.form.takes_missing) for name in names
    ]
    features = [*map(_feature, columns, _units(job, names), zip(*rows, strict=True))]
    answers = [_answer(model, each) for each in rows[:EXAMPLES]]
    labels = _labels(model, job, answers)
    return Card(
        task="classification" if labels else "regression",
        description=job.description or f"A model that {job.examples.name} describes.",
        features=features,
        labels=labels,
        targets=[] if labels else _targets(model, len(answers[0])),
        metrics={},
        dataset=Dataset(
            name=job.examples.name,
            source="Rows that were given to describe the model",
            sha256=hashlib.sha256(job.examples.read_bytes()).hexdigest(),
            licence="not said",
        ),
        training={},
        versions={"onnxruntime": RUNTIME_VERSION},
        examples=[
            Example(name=f"row {number}", input=values, output=answer)
            for number, (values, answer) in enumerate(zip(rows, answers, strict=False), 1)
        ],
    )


def save(source: Path, card: Card, target: Path, settings: Settings) -> None:
    """Write a copy of a model with a card, and its weights beside it; all of it or nothing.

    Raises CannotDescribe, ModelError where the copy does not answer as the card says, OSError.
    """
    weights = names_of(source)[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    if weights and target.parent.resolve() != source.parent.resolve():
        raise CannotDescribe(
            f"{source}: its weights are in {weights[0]}: write the copy into the same folder"
        )
    entry = message(1, METADATA_KEY) + message(2, card.to_json())
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=".", suffix=".onnx", delete=False
    ) as beside:
        path = Path(beside.name)
        try:
            # Messages that stand behind each other are one (protobuf's documentation, "Encoding").
            beside.write(source.read_bytes() + message(_METADATA, entry))
            beside.flush()
            open_tested(path, "", settings, 1, pins=Approved()).close()
            os.fchmod(beside.fileno(), source.stat().st_mode & 0o777)
            os.fsync(beside.fileno())
            path.replace(target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _read(model: Model, job: Job) -> tuple[list[str], list[list[Value]]]:
    """Return the names of the columns, and the rows."""
    with job.examples.open(encoding="utf-8-sig", newline="") as file:
        try:
            lines = [cells for cells in csv.reader(file, strict=True) if any(cells)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise CannotDescribe(f"{job.examples}: expected CSV in UTF-8, got: {error}") from error
    if not lines:
        raise CannotDescribe(f"{job.examples}: expected rows, got none")
    header = [each.strip() for each in lines[0]]
    names, places, has_header = _names(model, job, header)
    rows = []
    for number, cells in enumerate(lines[has_header:], 1 + has_header):
        where = f"{job.examples}: row {number}"
        if len(cells) != len(header):
            raise CannotDescribe(f"{where}: expected {len(header)} values, got {len(cells)}")
        values = row(values_of([cells[place] for place in places], model.form), where, model)
        rows.append([None if value != value else value for value in values])  # NaN
    if not rows:
        raise CannotDescribe(f"{job.examples}: expected rows, got none")
    return names, rows


def _names(model: Model, job: Job, header: Sequence[str]) -> tuple[list[str], Sequence[int], bool]:
    """Return the names of the columns, where each stands, and whether the first line says it."""
    where, size = job.examples, model.row_size
    hint = "; is it separated by commas?" if len(header) == 1 < size else ""
    if model.column_names and job.columns and job.columns != model.column_names:
        expected = ", ".join(model.column_names)
        raise CannotDescribe(f"--columns: expected the inputs of the model, {expected}")
    known = model.column_names or job.columns
    holds_numbers = any(not isinstance(value_of(each), str) for each in header)
    is_header = any(each in known for each in header) or not holds_numbers
    if not is_header or (known and len(header) == size and not set(known) & set(header)):
        if header == [str(number) for number in range(len(header))] and len(header) > 1:
            raise CannotDescribe(f"{where}: expected a row, got {','.join(header)}, a pandas index")
        if is_header and not model.column_names:
            raise CannotDescribe(f"{where}: expected columns {', '.join(known)} in the header")
        if len(header) != size or len(known) != size:
            got = f"{len(header)} values, and {len(known)} names"
            raise CannotDescribe(f"{where}: expected {size} columns, got {got}{hint}")
        return known, range(size), False
    names = known or list(header)
    for name in names:
        if (count := header.count(name)) != 1:
            got = f"{count or 'none'}{hint}"
            raise CannotDescribe(f"{where}: expected one column {name}, got {got}")
    if len(names) != size:
        raise CannotDescribe(
            f"{where}: expected {size} columns, got {len(names)}{hint}; --columns chooses some"
        )
    return names, [header.index(name) for name in names], True


def _units(job: Job, names: Sequence[str]) -> list[str]:
    """Return the unit of each column; given for all of them, or by name."""
    by_name = dict(each.partition("=")[::2] for each in job.units)
    if unknown := by_name.keys() - set(names):
        expected = ", ".join(names)
        raise CannotDescribe(f"--units: expected {expected}, got {', '.join(sorted(unknown))}")
    return [by_name.get(name, "") for name in names]


def _feature(column: Column, unit: str, values: Sequence[Value]) -> Feature:
    """Return what the values of a column show."""
    known = [value for value in values if value is not None]
    if not known:
        raise CannotDescribe(f"{column.name}: expected a value in some row, got none")
    about: dict[str, Any] = {"name": column.name, "unit": unit, "description": ""}
    common = [value for value, _ in Counter(known).most_common(MOST_VALUES)]
    if column.dtype is np.object_:
        return Feature(**about, type="string", default=common[0], values=[*map(str, common)])
    if column.dtype is np.bool_:
        return Feature(**about, type="boolean", default=common[0])
    numbers = [float(value) for value in known]
    is_whole = all(map(float.is_integer, numbers))
    middle = statistics.median_low(numbers) if is_whole else statistics.median(numbers)
    return Feature(
        **about,
        minimum=min(numbers),
        maximum=max(numbers),
        mean=statistics.fmean(numbers),
        std=statistics.pstdev(numbers),
        default=middle,
    )


def _answer(model: Model, values: Sequence[Value]) -> list[float]:
    """Return what a model answers to a row, as a card has it. Raises CannotDescribe."""
    try:
        outputs = run_rows(model, model.rows_of([values]))
    except (InferenceFailed, UnknownValue) as error:
        raise CannotDescribe(f"--examples: {error}: {list(values)}") from error
    if model.classifier is None and len(outputs) != 1:
        names = ", ".join(each.name for each in model.outputs)
        raise CannotDescribe(f"expected one output, or those of a classifier, got {names}")
    if any(np.dtype(each.dtype).kind == "O" for each in outputs) and model.classifier is None:
        raise CannotDescribe(
            f"expected numbers as the answer, got {model.outputs[0].name} of texts"
        )
    return [float(each) for each in model.numbers_of(outputs)]


def _labels(model: Model, job: Job, answers: Sequence[Sequence[float]]) -> list[str]:
    """Return the labels of a classifier, none of a regression. Raises CannotDescribe."""
    classifier = model.classifier
    labels = job.labels or (classifier.names if classifier else [])
    if classifier is None and not labels:
        return []
    count = len(answers[0])
    if len(labels) != count:
        raise CannotDescribe(f"--labels: expected {count}, one for each class, got {len(labels)}")
    if classifier and labels != classifier.names and set(labels) == set(classifier.names):
        known = ", ".join(classifier.names)
        raise CannotDescribe(f"--labels: expected the order of the file, {known}, or no labels")
    are_shares = all(min(each) >= 0 and abs(sum(each) - 1) < 1e-3 for each in answers)
    if classifier is None and not are_shares:
        got = ", ".join(f"{each:.4g}" for each in answers[0])
        raise CannotDescribe(
            f"--labels: expected a model that answers probabilities, got [{got}]: export it with a "
            "softmax behind"
        )
    return labels


def _targets(model: Model, count: int) -> list[Target]:
    name = model.outputs[0].name
    names = [name] if count == 1 else [f"{name}_{place}" for place in range(count)]
    return [Target(name=each, unit="", description="") for each in names]
