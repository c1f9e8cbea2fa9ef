"""The command line: `python -m service` serves until SIGTERM or Ctrl-C; other commands beside it.

Each imports what it needs when it runs: `health` and the parent of several workers need little.
"""

import signal

# Ctrl-C while the rest is imported ends the process without a traceback; if it is not ignored.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import csv
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from service.commands.interrupts import no_interrupt
from service.commands.terminal import open_closed, say_last
from service.errors import ServiceError
from service.settings import Settings, describe

BROKEN_PIPE, INTERRUPTED = 141, 130  # exit statuses as shells have them: 128 and the signal


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status.

    0 when all is well, 1 when it cannot be done, 3 when `score` left out rows, 2 for arguments that
    do not fit, as argparse has it.
    """
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or "1"
    os.environ["OPENBLAS_NUM_THREADS"] = threads  # NumPy's pool would compete with the loop
    open_closed()
    options = _parser().parse_args(arguments)
    try:
        with _interrupts_raised():
            return run(options)
    except ServiceError as error:
        say_last(str(error))
        return 1
    except BrokenPipeError:  # who reads has enough
        return BROKEN_PIPE
    except KeyboardInterrupt as interrupt:
        say_last("; ".join(["interrupted", *interrupt.args]))
        return INTERRUPTED


@contextlib.contextmanager
def _interrupts_raised() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt; before and after it ends the process in silence."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:  # it is ignored, or another's
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(options: argparse.Namespace) -> int:
    """Run one of the commands, importing only what it needs. Raises ServiceError."""
    if options.command == "doctor":
        from service.commands.doctor import examine

        with no_interrupt(), contextlib.suppress(ImportError):
            importlib.import_module("service.engine.providers")  # which doctor would import
        return examine(os.environ, _check_routes, as_json=options.json)
    settings = Settings.from_env(os.environ)
    if options.command == "health":
        from service.commands.health import check

        check(settings)
    elif options.command == "score":
        with no_interrupt():
            from service.commands.score.command import score
            from service.commands.score.options import Job

        return score(msgspec.convert(vars(options), Job), settings)
    elif options.command == "card":
        with no_interrupt():
            from service.commands.card import Job as CardJob
            from service.commands.card import write_card

        return write_card(msgspec.convert(vars(options), CardJob), settings)
    elif options.command == "inspect":
        with no_interrupt():
            from service.commands.inspect import inspect

        return inspect(options.model, settings, as_json=options.json)
    elif options.command == "pin":
        with no_interrupt():
            from service.commands.pin import pin

        return pin(options.models, settings, only_check=options.check)
    else:
        with no_interrupt():
            from service.process.server import serve

        serve(settings)
    return 0


def _check_routes(settings: Settings) -> None:
    """Raise InvalidSetting for a route of the settings that hides another."""
    from service.http.routes import routes_for

    routes_for(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve the models of a folder over HTTP.",
        epilog="Settings are environment variables:\n" + _settings_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    commands.add_parser("serve", help="serve until SIGTERM or Ctrl-C: the default")
    says = "exit with 0 if the service that has these settings is ready, else with 1"
    commands.add_parser("health", help=says, description=_as_sentence(says))
    _add_score(commands.add_parser("score", help="answer each row of a file with a model"))
    says = "report what a model is, what it takes and answers, and whether it can be served"
    inspect = commands.add_parser("inspect", help=says, description=_as_sentence(says))
    inspect.add_argument("model", metavar="MODEL", help="iris, iris/1 or a path to an .onnx file")
    _add_card(commands.add_parser("card", help="describe a model that was made elsewhere"))
    says = "approve the files of models as they are: list their digests in SHA256SUMS"
    pin = commands.add_parser("pin", help=says, description=_as_sentence(says))
    pin.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="iris (all its versions) or iris/1; all models if none is named",
    )
    pin.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a file differs"
    )
    says = (
        "report what would run here, on what, and what is wrong; exit with 1 if something is; it "
        "loads every model anew, beside a service that runs"
    )
    doctor = commands.add_parser("doctor", help=says, description=_as_sentence(says))
    for each in (inspect, doctor):
        each.add_argument("--json", action="store_true", help="JSON for machines")
    return parser


def _as_sentence(says: str) -> str:
    return f"{says[0].upper()}{says[1:]}."


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answer each row of a file, or of several, as POST /predict would. Run again after it was "
        "stopped, it goes on where it was. Exit status: 0, or 3 when bad rows were left out, each "
        "named on stderr; 1 when it cannot be done, 130 after Ctrl-C."
    )
    parser.add_argument(
        "model", metavar="MODEL", help="iris (its highest version), iris/1 or a path to .onnx"
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="CSV, with a header that names the features or without one, JSON Lines or "
        "MessagePack; with pyarrow .csv.gz, .csv.zst, Parquet, Arrow and images too, and a folder "
        "or a pattern of such files; - is stdin",
    )
    parser.add_argument("output", metavar="OUTPUT", help="a file to make, or a folder; - is stdout")
    parser.add_argument(
        "--format",
        help="csv, jsonl, msgpack, parquet, arrow, arrows: of what has no suffix that says it; "
        "else that of the other file",
    )
    parser.add_argument(
        "--keep", action="store_true", help="copy what INPUT has beside the features"
    )
    parser.add_argument(
        "--workers",
        default="1",
        metavar="N",
        help="processes that answer, of CSV, Parquet, Arrow and images; auto: one for each core",
    )
    parser.add_argument(
        "--on",
        metavar="ray[=ADDRESS]",
        help="let them be actors of a Ray cluster; of this machine alone without an address",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace OUTPUT, or the beginning of another one, if it is there",
    )


def _add_card(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a copy of a model that describes itself: names, units and ranges of its columns, "
        "labels, and examples with its own answers, by which it is tested whenever it is opened. "
        "The first rows of the examples can be seen by all who can use the service."
    )
    parser.add_argument("model", metavar="MODEL", help="a path to .onnx, iris or iris/1")
    parser.add_argument(
        "--examples",
        type=Path,
        required=True,
        metavar="ROWS.csv",
        help="rows as the model takes them, best those that it was trained with: ranges and common "
        "values are theirs, the first 5 become examples",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="COPY.onnx",
        help="where the copy goes; MODEL.card.onnx if not said",
    )
    for name, what in (
        ("columns", "names of the columns, if neither the model nor a header has them"),
        ("labels", "names of the classes, in the order of the model's answers"),
        ("units", "units of columns, as area=m2,age=years"),
    ):
        parser.add_argument(f"--{name}", type=_names, default=[], metavar="A,B", help=what)
    parser.add_argument("--description", default="", help="a sentence for the pages")
    parser.add_argument("--force", action="store_true", help="replace COPY.onnx if it is there")


def _names(text: str) -> list[str]:
    """Return names, as a line of CSV has them."""
    names = [each.strip() for each in next(csv.reader([text], skipinitialspace=True))]
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, got {text!r}")
    return names


def _settings_table() -> str:
    return "\n".join(
        f"  {variable:<28} {default or 'unset':<10} {description}"
        for variable, default, description in describe()
    )


if __name__ == "__main__":
    sys.exit(main())
