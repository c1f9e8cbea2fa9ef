"""Opening one model as the service does: tested, given its threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct

from service.catalog.folder import MODEL_FILE, check_readable
from service.catalog.pins import Approved, approved, of_path
from service.engine.file import unreadable
from service.engine.model import Model
from service.engine.providers import has_choice
from service.engine.trial import Trial
from service.errors import NotApproved, OutOfResources, ServiceError, StartupError
from service.settings import Settings


def open_tested(
    path: Path,
    name: str,
    settings: Settings,
    threads: int,
    *,
    only_slow_in_threads: bool = True,
    trial: Trial | None = None,
    pins: Approved | None = None,
) -> Model:
    """Open the file of the model `name`, in any thread, and test it by its examples.

    pins: what is approved; what the settings say if not given. Raises ModelError or StartupError;
    see Model.open and `approved`.
    """
    pins = pins or approved(settings)
    untested = partial(_opened, path, name, settings, threads, only_slow_in_threads, trial, pins)

    def opened(device: str, short_of: str) -> Model:
        model = untested(device, short_of)
        with _worded(path):
            model.self_test()
        return model

    return _or_on_the_cpu(settings.runs_on, opened)


def open_untested(
    path: Path, name: str, settings: Settings, threads: int, *, only_slow_in_threads: bool = True
) -> Model:
    """Open the file of the model `name`. Raises ModelError or StartupError; see Model.open."""
    pins = approved(settings)
    return _or_on_the_cpu(
        settings.runs_on,
        partial(_opened, path, name, settings, threads, only_slow_in_threads, None, pins),
    )


def _or_on_the_cpu(device: str, opened: Callable[[str, str], Model]) -> Model:
    """Call `opened` with a device and why it is that; with the CPU where "auto" is short there."""
    try:
        return opened(device, "")
    except OutOfResources as error:
        if not has_choice(device):
            raise
        reason = str(error)  # and no reference to the model that failed
    return opened("cpu", f"{reason}; it runs on the CPU instead")


def _opened(
    path: Path,
    name: str,
    settings: Settings,
    threads: int,
    only_slow_in_threads: bool,
    trial: Trial | None,
    pins: Approved,
    device: str,
    short_of: str,
) -> Model:
    with _worded(path):
        check_readable(path)
        return Model.open(
            path,
            device=device,
            may_fall_back=settings.fallback != "refuse",
            threads=threads,
            max_batch_size=settings.max_batch_size,
            batching=settings.batching.of(name),
            missing=settings.missing.of(name),
            only_slow_in_threads=only_slow_in_threads,
            short_of=short_of,
            trial=trial,
            pins=pins.of(f"{name}/{path.parent.name}")
            if name
            else of_path(pins, path, settings.models_dir),
        )


@contextmanager
def _worded(path: Path) -> Iterator[None]:
    """Raise OutOfResources or ModelError for what the system refuses while a model is opened."""
    try:
        yield
    except MemoryError as error:
        raise OutOfResources(f"{path.name}: there is not enough memory to open it") from error
    except OSError as error:
        raise unreadable(error, f"{path.name}: cannot be read: {error.strerror}") from error


def where(model: Model) -> str:
    """Say where the service runs a model."""
    if model.is_fast:
        return "in the event loop"
    threads = "1 core" if model.threads == 1 else f"{model.threads} cores"
    return f"in a thread of its own, {threads}"


def facts(model: Model, settings: Settings) -> Iterator[str]:
    """Yield what the log says of a model that serves now."""
    what = f"{model.largest_batch} rows" if model.is_batched else "a request"
    cost = "a time that is not known" if model.batch_s is None else f"{model.batch_s * 1000:.2f} ms"
    yield f"ready on {model.device}, {what} in {cost}, {where(model)}"
    runs = "each request by itself"
    if model.is_batched:
        runs = f"rows of several requests together, {model.largest_batch} at most"
    yield f"runs {runs}: {model.why_batching}"
    if model.assignment.is_on_a_device and not _is_warned_of(model, settings):
        yield f"runs {model.assignment}"


def _is_warned_of(model: Model, settings: Settings) -> bool:
    """Whether nodes fell back to the CPU, and nobody said that they may."""
    is_asked = settings.runs_on != "auto" and settings.fallback != "allow"
    return is_asked and bool(model.assignment.fallen)


def warnings(model: Model, settings: Settings) -> Iterator[str]:
    """Yield what the log warns of when a model begins to serve."""
    if _is_warned_of(model, settings):
        yield f"runs {model.assignment}"
    if model.trial.failure and model.card is None:
        yield ("it could not be tried, and has no examples to be tested by: " + model.trial.failure)
    if model.short_of:
        yield f"{model.short_of}: opened again, it may do better"
    if not model.trial.is_steady:
        yield "the same row gets other answers each time: does it draw random numbers?"
    if not model.trial.is_optimized:
        yield (
            "runs as it is written: with ONNX Runtime's optimizations a run changes the next; was "
            "it exported in training mode?"
        )
    if model.card is None:
        yield from model.trial.doubts
    for output, kind in model.left_out.items():
        yield f"output {output} is left out: no protocol carries {kind}"


class Failure(Struct, frozen=True):
    """Why a version could not be opened, and the cause, for the log alone."""

    reason: str
    cause: str = ""
    may_pass: bool = False  # without a change of its files
    is_unapproved: bool = False  # its files are not those that were approved


def failure_of(error: Exception) -> Failure:
    """Return what to say of an error; no reference to it remains.

    Its traceback holds the model that failed.
    """
    if isinstance(error, ServiceError):
        # A device that was there when the service started may come back.
        may_pass = isinstance(error, (OutOfResources, StartupError))
        is_unapproved = isinstance(error, NotApproved)
        return Failure(str(error), str(error.__cause__ or ""), may_pass, is_unapproved)
    return Failure(f"{MODEL_FILE}: could not be opened", f"this is a bug: {error!r}")
