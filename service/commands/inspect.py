"""`python -m service inspect MODEL`: what a model is, takes and answers, and how good it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from service.card import Card, Example, Value
from service.catalog.opening import open_untested, warnings, where
from service.catalog.place import Place, find, sentence
from service.commands.terminal import Stdout
from service.engine import file
from service.engine.assignment import Assignment
from service.engine.classifier import Classifier
from service.engine.contents import File
from service.engine.model import Model
from service.engine.providers import device_of
from service.engine.spec import Tensor
from service.errors import CannotInspect, ModelError, SelfTestFailed
from service.formats.predictions import fields
from service.settings import Settings, machine
from service.words import plain

WIDTH = 13  # of the left column

# A word for the left column, and the lines that stand beside it, if any.
Section: TypeAlias = tuple[str, list[str]]


class Port(Struct, frozen=True):
    """An input or output of the graph; -1 in its shape is open, None is any shape."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


class Head(Struct, frozen=True, kw_only=True):
    """What stands in the file beside the graph, as ONNX says it."""

    ir_version: int | None = None
    opsets: dict[str, int] = {}
    producer: str = ""
    producer_version: str = ""


class Inspection(Struct, frozen=True, kw_only=True):
    """What is known of a model. Times are in seconds, None where they cannot be known."""

    model: str
    path: str
    files: list[File]
    self_test: str  # "passed", "none" or why it failed
    provider: str
    nodes: Mapping[str, int]  # of the graph, by the provider that runs them
    fallback: Mapping[str, int]  # of operators that the first provider has not
    max_batch_size: int
    row_seconds: float | None = None
    batch_seconds: float | None = None
    runs_in: str = ""
    takes_rows: bool
    why_no_rows: str
    batching: Literal["rows", "requests"]  # whether callers share a run
    why_batching: str
    head: Head
    inputs: list[Port]
    outputs: list[Port]
    left_out: dict[str, str]
    classifier: Classifier | None
    warnings: list[str]
    card: Card | None


def inspect(model: str, settings: Settings, *, as_json: bool) -> int:
    """Print what a model is; return the exit status: 1 if it fails its self-test.

    Raises CannotInspect, and what `find` and `Stdout.write` raise.
    """
    found = inspection(model, settings)
    if as_json:
        Stdout().line(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        Stdout().line("\n".join(report(found)))
    return 0 if found.self_test in ("passed", "none") else 1


def inspection(model: str, settings: Settings) -> Inspection:
    """Open a model and describe it. Raises CannotInspect, and what `find` raises."""
    place = find(model, settings)
    try:
        threads = machine.available().threads(1)
        opened = open_untested(place.path, place.model, settings, threads)
        try:
            opened.self_test()
            self_test = "passed" if opened.card else "none"
        except SelfTestFailed as error:
            self_test = str(error)
        return _of(place, opened, self_test, settings)
    except ModelError as error:
        raise CannotInspect(sentence(place, error)) from error
    except OSError as error:
        raise CannotInspect(f"{place.name}: cannot be read: {error.strerror}") from error


def _of(place: Place, model: Model, self_test: str, settings: Settings) -> Inspection:
    was_tested = self_test in ("passed", "none")
    return Inspection(
        model=place.name,
        path=str(place.path),
        files=list(model.files),
        self_test=self_test,
        provider=model.provider,
        nodes=model.assignment.nodes,
        fallback=model.assignment.fallen,
        max_batch_size=model.largest_batch,
        row_seconds=model.row_s if was_tested else None,
        batch_seconds=model.batch_s if was_tested else None,
        runs_in=where(model) if was_tested else "",
        takes_rows=not model.why_no_rows,
        why_no_rows=model.why_no_rows,
        batching="rows" if model.is_batched else "requests",
        why_batching=model.why_batching,
        head=msgspec.convert(file.read(place.path), Head, from_attributes=True),
        inputs=[_port(each) for each in model.inputs],
        outputs=[_port(each) for each in model.trial.outputs],
        left_out=model.left_out,
        classifier=model.classifier,
        warnings=list(warnings(model, settings)),
        card=model.card,
    )


def _port(tensor: Tensor) -> Port:
    dtype = "string" if tensor.dtype is np.object_ else np.dtype(tensor.dtype).name
    return Port(tensor.name, dtype, tensor.shape if tensor.has_shape else None)


def report(found: Inspection) -> Iterator[str]:
    """Yield lines that say to people what a model is."""
    card = found.card
    yield f"{plain(found.model)}: {plain(card.description) if card else 'an ONNX file, no card'}"
    yield ""
    yield from _lines(_of_file(found))
    if card is not None:
        yield ""
        yield from _lines(_of_card(card))


def _of_file(found: Inspection) -> list[Section]:
    together = "rows of several requests" if found.batching == "rows" else "each request by itself"
    classifier = None if found.card else found.classifier
    takes = found.why_no_rows and f"no rows by way of /predict: {found.why_no_rows}"
    return [
        ("opens", [f"yes, on {device_of(found.provider)}"]),
        ("nodes", [str(Assignment(found.nodes, found.fallback))]),
        ("self-test", [_self_test(found)]),
        ("cost", [_cost(found)]),
        ("runs", [f"{together}: {found.why_batching}"]),
        *(
            ("file", [f"{each.name}, {each.bytes:,} bytes", f"sha256 {each.sha256}"])
            for each in found.files
        ),
        ("made by", [_maker(found.head)]),
        ("takes", [takes or "rows"] if takes or not found.card else []),
        ("inputs", [_port_text(each) for each in found.inputs]),
        ("outputs", [_port_text(each) for each in found.outputs]),
        ("answers", [", ".join(fields(classifier))] if classifier else []),
        ("labels", [", ".join(classifier.names) or "not known"] if classifier else []),
        ("warning", found.warnings),
    ]


def _of_card(card: Card) -> list[Section]:
    dataset = card.dataset
    origin = f"{dataset.name}, {dataset.source}", f"licence: {dataset.licence}"
    caveats = [f"caveat: {each}" for each in dataset.caveats]
    image = []
    if card.image:
        size = " x ".join(map(str, card.image.shape))
        image = [f"{size}, values 0 to 255", card.image.preparation]
    features = []
    for each in card.features:
        mean = "" if each.mean is None else f"mean {each.mean:.4g}"
        features.append([each.name, each.unit or "-", each.seen, mean, each.description])
    targets = [[each.name, each.unit, each.description] for each in card.targets]
    interval = card.interval and f"meant to hold {card.interval.coverage:.0%} of the true values"
    return [
        ("task", [card.task]),
        ("features", _table(features)),
        ("image", image),
        ("labels", [", ".join(card.labels)] if card.labels else []),
        ("targets", _table(targets)),
        ("interval", [interval] if interval else []),
        ("held out", [_pairs(card.metrics)] if card.metrics else []),
        ("data set", [*origin, f"sha256 {dataset.sha256}", *caveats]),
        ("training", [_pairs(card.training)] if card.training else []),
        ("versions", [_pairs(card.versions)]),
        ("examples", [_example(card, each) for each in card.examples]),
        ("pictures", [f"{each.file}: {each.title}" for each in card.pictures]),
    ]


def _example(card: Card, example: Example) -> str:
    if card.labels:
        highest = max(example.output)
        answer = f"{card.labels[example.output.index(highest)]} ({highest:.3g})"
    else:
        answer = _numbers(example.output)
        if example.interval:
            answer += f" in {_numbers(example.interval)}"
    return f"{example.name}: {_numbers(example.input)} gives {answer}"


def _numbers(numbers: Sequence[Value]) -> str:
    shown = ", ".join(f"{x:.4g}" if isinstance(x, float) else repr(x) for x in numbers[:8])
    return f"[{shown}{', ...' if len(numbers) > 8 else ''}]"


def _self_test(found: Inspection) -> str:
    if found.self_test == "none":
        return "none: only a card has examples to be tested by"
    if found.self_test == "passed" and found.card is not None:
        return f"passed: {len(found.card.examples)} examples answered as the card says"
    return f"FAILED: {found.self_test}"


def _cost(found: Inspection) -> str:
    if found.row_seconds is None or found.batch_seconds is None:
        return f"not measured: {found.runs_in}" if found.runs_in else "not measured"
    one, many = (f"{each * 1000:.3g} ms" for each in (found.row_seconds, found.batch_seconds))
    return f"1 row {one}, {found.max_batch_size} rows {many}: {found.runs_in}"


def _maker(head: Head) -> str:
    producer = f"{head.producer} {head.producer_version}".strip() or "an unknown producer"
    opsets = ", ".join(f"{domain} {version}" for domain, version in head.opsets.items())
    return f"{producer}; opset {opsets or '?'}; IR {head.ir_version or '?'}"


def _port_text(port: Port) -> str:
    if port.shape is None:
        return f"{port.name}: {port.dtype} of any shape"
    sizes = ", ".join("?" if size == -1 else str(size) for size in port.shape)
    return f"{port.name}: {port.dtype} ({sizes})"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )


def _table(rows: list[list[str]]) -> list[str]:
    """Return rows as lines, their columns one below the other."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _lines(sections: list[Section]) -> Iterator[str]:
    """Yield a line for each text, the first of a section with its head."""
    for head, texts in sections:
        for text in texts:
            yield f"{head:<{WIDTH}} {plain(text)}".rstrip()
            head = ""
