"""What doctor says of ONNX Runtime, and of the models: it opens each as the service does."""

import errno
import os
import sys
from collections.abc import Iterator, Set
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from service.catalog.folder import (
    LEFT_OUT,
    MODEL_FILE,
    Found,
    scan,
    why_no_model,
    why_no_version,
)
from service.catalog.pins import Approved, approved, place_of
from service.errors import InvalidPins, InvalidSetting, ModelError, NotApproved, StartupError
from service.settings import Settings, variable_name
from service.settings.split_file import not_ready, split_of

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


class Finding(Struct, frozen=True, omit_defaults=True):
    """One thing that was checked: what it is, and what to do if it is wrong."""

    topic: str
    state: Literal["well", "note", "wrong"]
    text: str
    advice: str = ""


def version(package: str) -> str:
    """Return the version of a package, nothing if it is not installed."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return ""


def runtime_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is found of ONNX Runtime and its execution providers."""
    topic = "ONNX Runtime"
    installed = {name: version(name) for name in RUNTIMES if version(name)}
    said = ", ".join(f"{name} {version}" for name, version in installed.items())
    if len(installed) > 1:
        advice = f"remove both, then install one: pip uninstall -y {' '.join(RUNTIMES)}"
        yield Finding(topic, "wrong", f"{said}: both are installed in the same place", advice)
    try:
        from service.engine.providers import RUNTIME_VERSION, available
    except ImportError as error:
        advice = "install the extra cpu or gpu: pip install '.[cpu]' -c constraints.txt"
        yield Finding(topic, "wrong", f"cannot be imported: {error}", advice)
        return
    providers = available()
    yield Finding(topic, "well", f"{said or RUNTIME_VERSION}, {', '.join(providers)}")
    yield _cuda(settings, providers) if settings.provider == "none" else _plugin(settings)


def _cuda(settings: Settings, providers: list[str]) -> Finding:
    from service.engine.providers import CUDA

    why = why_no_cuda(providers)
    if settings.device == "cuda" and why:
        advice = "install the extra gpu instead of cpu and NVIDIA's driver, or set TORCHLIT_DEVICE"
        return Finding("CUDA", "wrong", f"TORCHLIT_DEVICE is cuda, but {why}", f"{advice}=auto")
    noted = settings.device == "auto" and CUDA in providers and why
    return Finding("CUDA", "note" if noted else "well", why or "can be used")


def _plugin(settings: Settings) -> Finding:
    topic, chosen = "provider", settings.provider
    if why := why_no_device(settings):
        advice = "the service does not start like that: correct it, or unset TORCHLIT_PROVIDER"
        return Finding(topic, "wrong", f"TORCHLIT_PROVIDER is {chosen}, but {why}", advice)
    return Finding(topic, "well", f"{chosen} can be used")


def why_no_device(settings: Settings) -> str:
    """Say why no model runs where TORCHLIT_DEVICE or TORCHLIT_PROVIDER says, nothing if any may."""
    from service.engine.providers import available, problem_of, provider_of

    if settings.provider != "none":
        return problem_of(provider_of(settings.provider))
    return why_no_cuda(available()) if settings.device == "cuda" else ""


def why_no_cuda(providers: list[str]) -> str:
    """Say why no model runs on CUDA, nothing if they may."""
    from service.engine.providers import CUDA, driver_problem

    if CUDA in providers:
        return driver_problem()
    is_here = sys.platform == "linux" and not driver_problem()  # where else, it cannot be said
    beside = "" if not is_here else ", though NVIDIA's driver is here: install the extra gpu"
    return f"this ONNX Runtime has none{beside}"


def model_findings(settings: Settings, threads: int) -> Iterator[Finding]:
    """Yield what is found of the models folder, and of each model in it."""
    topic = "models"
    try:
        contents = scan(settings.models_dir, settings.versions)
    except StartupError as error:
        advice = f"set TORCHLIT_MODELS_DIR; a model is <name>/<version>/{MODEL_FILE} in it"
        yield Finding(topic, "wrong", str(error), advice)
        return
    found = contents.models
    ready: dict[str, list[int]] = {name: [] for name in found}
    yield Finding(topic, "well", f"{len(found)} in {settings.models_dir.resolve()}")
    for folder in contents.others:
        yield Finding(topic, "note", why_no_model(folder))
    for unknown in settings.unknown_models(found):
        yield Finding(topic, "note", unknown)
    try:
        settings.check_default_model(found)
    except InvalidSetting as error:
        advice = "correct it: the service does not start like that"
        yield Finding(topic, "wrong", str(error), advice)
    pins, finding = _pins(settings, found.keys())
    yield finding
    for name, each in found.items():
        if each.reason:
            yield Finding(f"model {name}", "wrong", each.reason, _advice(name, each))
        for folder in each.others:
            yield Finding(f"model {name}", "note", why_no_version(folder))
        for number, files in (each.versions or {}).items():
            if files == LEFT_OUT:
                yield Finding(f"model {name}/{number}", "note", "left out by TORCHLIT_VERSIONS")
            else:
                finding = _model(name, number, settings, threads, pins)
                if finding.state != "wrong":
                    ready.setdefault(name, []).append(number)
                yield finding
    yield from _split(settings, ready)


def _split(settings: Settings, ready: dict[str, list[int]]) -> Iterator[Finding]:
    """Yield what is found of weights; `ready` are the versions that can be opened."""
    topic, variable = "split", variable_name("split_file" if settings.split_file else "split")
    advice = "correct it: the service does not start like that"
    try:
        split = split_of(settings)
    except InvalidSetting as error:
        yield Finding(topic, "wrong", str(error), advice)
        return
    wrong = list(not_ready(split, ready))
    for sentence in wrong:
        yield Finding(topic, "wrong", f"{variable}: {sentence}", advice)
    if split.names and not wrong:
        yield Finding(topic, "well", f"{variable}: {split}")


def _pins(settings: Settings, models: Set[str]) -> tuple[Approved, Finding]:
    """Return which files are approved, and what is found of them."""
    topic, says = "pins", f"TORCHLIT_PINS={settings.pins}"
    try:
        found = approved(settings)
    except InvalidPins as error:
        advice = "correct the file, or write it with `python -m service pin`"
        return Approved(), Finding(topic, "wrong", str(error), advice)
    if not found.is_there:
        return found, Finding(topic, "well", f"no {found.source}: any file is opened")
    if unused := found.why_unused(models):
        return found, Finding(topic, "note", unused, "`python -m service pin` lists all models")
    count = len(found.digests)
    text = f"{count} digest{'s' * (count != 1)} in {place_of(settings)}, {says}"
    return found, Finding(topic, "well", text)


def _advice(name: str, found: Found) -> str:
    """Say what to do where a folder holds no version."""
    if found.versions is None:
        return "let this user read the folder"
    if found.reason.startswith(repr(name)):
        return "rename it, or remove the folder"
    return f"put a model there as {name}/1/{MODEL_FILE}, or remove the folder"


def _advice_for_file(path: Path, text: str) -> str:
    if text.startswith("TORCHLIT_FALLBACK"):
        return "set TORCHLIT_FALLBACK=warn to serve it all the same"
    if not text.startswith("cannot be read"):
        return f"replace or remove {path}"
    if os.strerror(errno.EACCES) in text:
        return f"let this user read {path}"
    return f"put a model there as {path}, or remove the folder"


def _model(name: str, number: int, settings: Settings, threads: int, pins: Approved) -> Finding:
    topic = f"model {name}/{number}"
    try:
        from service.catalog.opening import open_tested, warnings, where
        from service.catalog.place import Place, sentence
    except ImportError as error:
        return Finding(topic, "wrong", f"cannot be opened: {error}", "see the packages above")
    place = Place("", settings.models_dir / name / str(number) / MODEL_FILE)
    why_elsewhere = ""
    anywhere = msgspec.structs.replace(settings, device="auto", provider="none", fallback="allow")
    try:
        try:
            model = open_tested(place.path, name, settings, threads, pins=pins)
        except StartupError as error:  # the device cannot be had, which is told above, once
            why_elsewhere = str(error)
            model = open_tested(place.path, name, anywhere, threads, pins=pins)
    except NotApproved as error:
        text = sentence(place, error).removeprefix(": ")
        advice = f"see which files they are: `python -m service pin --check {name}/{number}`"
        return Finding(topic, "wrong", text, advice)
    except ModelError as error:
        text = sentence(place, error).removeprefix(": ")
        return Finding(topic, "wrong", text, _advice_for_file(place.path, text))
    tested = "self-test passed" if model.card else "opens, has no card to be tested by"
    cost = "not measured"
    if model.batch_s is not None:
        cost = f"{model.largest_batch} rows in {model.batch_s * 1000:.2f} ms"
    own, *weights = model.files
    digests = ", ".join([own.sha256, *(f"{each.sha256} of {each.name}" for each in weights)])
    text = f"{tested}, sha256 {digests}, {cost} on {model.device}, {where(model)}"
    if not model.is_batched:
        text += f"; each request runs by itself, as {model.why_batching}"
    if model.why_no_rows:
        text += f"; only by way of /v2, as {model.why_no_rows}"
    warned = list(warnings(model, settings))
    if not model.assignment.fallen:
        text += f"; runs {model.assignment}"
    text = "; ".join([text, *warned])
    is_well = model.batch_s is not None and not warned
    model.close()
    if why_elsewhere and not why_no_device(settings):
        advice = "unset TORCHLIT_PROVIDER, or see to what it needs"
        if settings.provider == "none":
            advice = "CUDA's libraries may be missing: install the extra gpu with cuda and cudnn"
        return Finding(topic, "wrong", f"{text}, though {why_elsewhere}", advice)
    return Finding(topic, "well" if is_well else "note", text)
