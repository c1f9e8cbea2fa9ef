"""Write the reference pages from the code; with --check, say which of them are stale.

python -m docs.reference            write docs/settings.md, and the other pages of PAGES
python -m docs.reference --check    write nothing; exit with 1 if a page differs from the code

A page is a function that returns its text. To add one, write the function and name it in PAGES.
"""

import argparse
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.formats.registry import FORMATS
from service.grpc.status import CODES
from service.http.route import Route
from service.http.routes import routes_for
from service.http.status import STATUS, headers_of
from service.metrics import Blocks, Metrics
from service.metrics.exposition import render
from service.metrics.instruments import SHADOW_ABSOLUTE, SHADOW_PROBABILITY, SHADOW_RELATIVE
from service.settings import OF_PLATFORMS, Settings, describe, variable_name

FOLDER = Path(__file__).parent
WRITTEN = "<!-- Written by docs/reference.py: change the code, not this page. -->"

# A model that stands for all: what depends on the model is shown in brackets.
MODEL = {"labels": ["<label>"], "features": ["<feature>"]}
INFO = {"provider": "<provider>", "device": "<device>"}
NODES = {"<provider>": 1}
DIFFERENCES = [SHADOW_PROBABILITY, SHADOW_ABSOLUTE, SHADOW_RELATIVE]
OF_EACH_MODEL = ("model", "version", "shadow")


def settings() -> str:
    """Return the page of all settings."""
    rows = [
        (f"`{variable}`", f"`{default}`" if default else "", description)
        for variable, default, description in describe()
    ]
    names = [
        (f"`{variable_name(field)}`", ", ".join(f"`{name}`" for name in others))
        for field, others in OF_PLATFORMS.items()
    ]
    return page(
        "# Settings",
        "This page lists every setting. Settings are environment variables:",
        "```sh\nTORCHLIT_PORT=8080 TORCHLIT_LOG_FORMAT=json make serve\n```",
        "A misspelt name or a value that does not fit stops the start with one sentence and exit "
        "status 1. An empty value counts as unset, but for `TORCHLIT_API_KEYS` and "
        "`TORCHLIT_API_KEYS_FILE`, which may not be empty. `true`, `1`, `yes` and `on` are the "
        "same, as are `false`, `0`, `no` and `off`. These words, and those of levels, formats and "
        "devices, may be written in any case.",
        table(("variable", "default", "what"), rows),
        "`OTEL_*` are OpenTelemetry's own: [Traces](operating.md#traces).",
        "## Names of cloud platforms",
        "Where a setting is unset, these variables count, the first of them that is set:",
        table(("setting", "other names"), names),
        "What Kubernetes sets for a Service named `torchlit` (`TORCHLIT_PORT=tcp://...`) is not "
        "taken for a setting.",
    )


def metrics() -> str:
    """Return the page of all metrics."""
    families = list(_families())
    rows = [
        (f"`{_shown_name(each)}`", each.type, _labels(each), each.documentation)
        for each in families
        if not each.name.startswith("process_")
    ]
    values = [
        (f"`{_shown_name(each)}`", f"`{label}`", ", ".join(f"`{value}`" for value in known))
        for each in families
        for label, known in _values(each).items()
    ]
    buckets = [
        (f"`{each.name}`", ", ".join(_bounds(each)))
        for each in families
        if each.type == "histogram"
    ]
    return page(
        "# Metrics",
        "This page lists everything that `GET /metrics` shows to Prometheus:",
        "```sh\ncurl -s localhost:8000/metrics | grep '^torchlit_workers'\n```",
        "```text\ntorchlit_workers 1.0\n```",
        "With several workers, every worker answers with the sums of all.",
        table(("metric", "type", "labels", "what"), rows),
        "`torchlit_shadow_*` are there where [TORCHLIT_SHADOW](changing-a-model.md) is set. "
        "`process_*` has the memory, CPU time and file descriptors of the workers.",
        "## Values of labels",
        table(("metric", "label", "values"), values),
        "Labels and features are those of the model's card, never what a caller sends.",
        "## Buckets",
        table(("histogram", "upper bounds"), buckets),
    )


def routes() -> str:
    """Return the page of all routes, from the table that dispatch follows."""
    rows = [
        (f"`{each.method} {each.path}`", WHO[each.who], each.summary, f"`{_place_of(each)}`")
        for each in routes_for(Settings())
    ]
    return page(
        "# Routes",
        "This page lists every path that the service answers. `HEAD` works wherever `GET` does. "
        "`GET /schema/openapi.json` describes the same for machines, with the models that are "
        "served; [Calling](calling.md), [V2](v2.md) and [Images](images.md) show how.",
        table(("route", "who may call, where API keys are set", "what", "handler"), rows),
        "`TORCHLIT_PREDICT_ROUTE` and `TORCHLIT_HEALTH_ROUTE` name a further path each: one that "
        "predicts as Vertex AI wants it, and one that answers as `/ping` "
        "([cloud platforms](operating.md#cloud-platforms)).",
    )


def errors() -> str:
    """Return the page of all errors that are answered, from the tree and the table of statuses."""
    rows = [
        (
            str(status),
            f"`{CODES[kind].name}`" if kind in CODES else "",
            f"`{kind.__name__}`",
            (kind.__doc__ or "").strip().splitlines()[0],
            f"`{kind.outcome}`",
            ", ".join(f"`{name.decode().title()}`" for name, _ in headers_of(kind(""))),
        )
        for kind, status in STATUS.items()
    ]
    return page(
        "# Errors",
        "This page lists every status of an error, its code over [gRPC](v2.md#grpc), and when it "
        "is answered. Every error is "
        '`{"error": "<what, expected, got, where>"}`:',
        "```sh\ncurl -s localhost:8000/predict "
        """-d '{"model": "iris", "instances": [[5.0, 3.4, 1.5]]}'\n```"""
        "\n```json\n"
        '{"error":"instances[0]: expected a list of 4 numbers or an object of sepal_length, '
        'sepal_width, petal_length, petal_width, got a list of 3"}\n```',
        table(("status", "over gRPC", "kind", "when", "counted as `outcome`", "headers"), rows),
        "Once the model is known, `X-Model-Version` says its version. Over gRPC the sentence is "
        "the message of the status, and there are no other headers than that.",
        "A binary tensor of `/v2` may hold NaN and infinity, as JSON cannot.",
    )


def formats() -> str:
    """Return the page of all formats, from the registry."""
    rows = [
        (
            each.name,
            ", ".join(f"`{name}`" for name in each.media_types),
            ", ".join(f"`{suffix}`" for suffix in each.suffixes),
            each.description,
        )
        for each in FORMATS
    ]
    return page(
        "# Formats",
        "This page lists what rows may be written in: bodies by their `Content-Type`, and files of "
        "[score](scoring.md) by their suffix.",
        table(("format", "media types", "suffixes", "what"), rows),
        "`/predict` reads a body of another type, or of none, as JSON; only other images get "
        "status 415. `/invocations` answers 415 to every other type. `/prepare` takes JSON and "
        "images, and answers 415 to the rest. A path of Vertex AI's own reads every body as JSON.",
    )


def converters() -> str:
    """Return the table of the files that tests/system/converters holds against their libraries."""
    cases, wrong = _of_converters("cases"), _of_converters("wrong")
    del cases["tolerance"]
    rows = []
    for name, each in cases.items():
        reasons = {way: of_way[name] for way, of_way in wrong.items() if name in of_way}
        cells = ("**no**" if way in reasons else "right" for way in CONVERTERS_WAYS)
        remarks = "; ".join(dict.fromkeys(reasons.values()))
        rows.append((f"`{name}`", each["library"], each["is"], *cells, remarks))
    return table(("file", "library", "what", *CONVERTERS_WAYS.values(), "remark"), rows)


def lies() -> str:
    """Return the table of the conversions that lie."""
    rows = [
        (each["what"], each["versions"], each["instead"])
        for each in _of_converters("lies").values()
    ]
    return table(("conversion", "seen with", "what helps"), rows)


def models() -> str:
    """Return the page of models as it is, with the tables of converters between their marks."""
    text = (FOLDER / "models.md").read_text()
    for name, write in (("converters", converters), ("lies", lies)):
        begin, end = f"<!-- {name}: written by docs/reference.py -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{write()}\n\n{end}{rest.split(end)[1]}"
    return text


CONVERTERS = FOLDER.parent / "tests" / "system" / "converters"
CONVERTERS_WAYS = {
    "predict": "`/predict`",
    "v2_json": "`/v2` JSON",
    "v2_binary": "`/v2` binary",
    "score": "`score`",
    "scorer": "`Scorer`",
}


def _of_converters(name: str) -> dict[str, Any]:
    return tomllib.loads((CONVERTERS / f"{name}.toml").read_text())


WHO = {"key": "who has a key", "probe": "all, unless `TORCHLIT_PROTECT_HEALTH`"}
WHO |= {"metrics": "all, unless `TORCHLIT_PROTECT_METRICS`", "everybody": "all"}

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "metrics.md": metrics,
    "routes.md": routes,
    "errors.md": errors,
    "formats.md": formats,
    "models.md": models,
}


def _place_of(route: Route) -> str:
    """Return the file of a route's handler."""
    of_ours = [each for name, each in sys.modules.items() if name.startswith("service.http.")]
    thing = route.procedure or route.handler
    made = [each.__name__ for each in of_ours if thing in vars(each).values()]
    # routes.py has imported it.
    (module,) = set(made) - {"service.http.routes"} or {route.handler.__module__}
    return f"{module.replace('.', '/')}.py"


def _families() -> Iterable[Metric]:
    """Return every metric family, as Prometheus reads it of a service with one model."""
    recorded = Metrics(Blocks())
    recorded.add("<model>", "1", **MODEL, info=INFO, nodes=NODES)
    recorded.show_splits([("<model>", "1")])
    recorded.add_shadow("<model>", "1", "2", labels=["<label>"], differences=DIFFERENCES)
    return text_string_to_metric_families(render(recorded).decode())


def _shown_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    """Return the names of the labels, those of every model first."""
    names = dict.fromkeys(name for sample in family.samples for name in sample.labels)
    names.pop("le", None)
    first = [name for name in OF_EACH_MODEL if name in names]
    return ", ".join(f"`{name}`" for name in (*first, *sorted(names.keys() - set(first))))


def _values(family: Metric) -> dict[str, list[str]]:
    """Return the values of each label that do not depend on the model."""
    values: dict[str, dict[str, None]] = {}
    for sample in family.samples:
        for name, value in sample.labels.items():
            if name not in (*OF_EACH_MODEL, "le") and not value.startswith("<"):
                values.setdefault(name, {})[value] = None
    return {name: list(known) for name, known in values.items()}


def _bounds(family: Metric) -> list[str]:
    return list(dict.fromkeys(each.labels["le"] for each in family.samples if "le" in each.labels))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(title: str, *parts: str) -> str:
    """Return a page that says where it comes from."""
    return "\n\n".join((title, WRITTEN, *parts)) + "\n"


def main() -> int:
    """Write or check every page; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.reference")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is stale")
    check = parser.parse_args().check
    stale = []
    for name, write in PAGES.items():
        path, text = FOLDER / name, write()
        if path.exists() and path.read_text() == text:
            continue
        if check:
            stale.append(name)
        else:
            path.write_text(text)
    for name in stale:
        where = os.path.relpath(FOLDER / name)
        print(f"{where} is not what the code says: run python -m docs.reference", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
