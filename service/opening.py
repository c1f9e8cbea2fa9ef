"""Opening one model as the service does: found by name or path, tested, given its threads."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from service.errors import ModelError, NotFound
from service.folder import LEFT_OUT, MODEL_FILE, VERSION, check_readable, scan
from service.inputs import did_you_mean
from service.model import Model
from service.settings import Settings


class Place(Struct, frozen=True):
    """Where a model is: its file, and what to call it, `iris/1` or the path that was given."""

    name: str
    path: Path


def find(model: str, settings: Settings) -> Place:
    """Return where `model` is: a path that ends in .onnx, `iris/1`, or `iris`: the highest version.

    Of the versions that TORCHLIT_VERSIONS leaves out none is the highest. Raises NotFound, and
    StartupError where there is no models folder.
    """
    if model.endswith(".onnx"):
        return Place(model, Path(model))
    folder = settings.models_dir
    name, _, number = model.rstrip("/").partition("/")
    models = scan(folder, settings.versions)
    if name not in models:
        hint = did_you_mean(name, list(models))
        raise NotFound(f"{model}: no such model in {folder}, nor a file that ends in .onnx{hint}")
    found = models[name]
    if found.reason:
        raise NotFound(found.reason)
    versions = found.versions or {}
    if not number:
        number = str(max(each for each, files in versions.items() if files != LEFT_OUT))
    elif not VERSION.fullmatch(number) or int(number) not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise NotFound(f"{model}: version: expected one of {known}; got {number!r}")
    return Place(f"{name}/{number}", folder / name / number / MODEL_FILE)


class File(Struct, frozen=True):
    """A file of a model: the .onnx, or weights that it names or that begin with its name."""

    name: str  # from the folder of the .onnx
    bytes: int
    sha256: str


def files_of(path: Path) -> list[File]:
    """Return the files of a model, whose digests say whether it is the same.

    Raises ModelError where one cannot be read.
    """
    try:
        beside = {each.name for each in path.parent.iterdir() if each.name.startswith(path.name)}
        names = sorted(beside | set(_weights(path.read_bytes())))
        return [_file(path, each) for each in names if os.path.isfile(path.parent / each)]
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error


def _weights(model: bytes) -> Iterator[str]:
    """Yield what may be the names of files with weights, wherever a model has them.

    Each is the value of the key `location` in a StringStringEntryProto (onnx.proto).
    """
    for key in re.finditer(rb"\x0a\x08location\x12", model):
        length, shift, at = 0, 0, key.end()
        for byte in model[at : at + 5]:  # a varint: 7 bits of each byte, the lowest first
            length |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if byte < 0x80:
                break
        yield os.fsdecode(model[at : at + length])


def _file(path: Path, name: str) -> File:
    with (path.parent / name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(name, os.fstat(file.fileno()).st_size, digest)


def open_tested(path: Path, settings: Settings, threads: int) -> Model:
    """Open a file, test and measure it, in any thread. Raises ModelError or StartupError.

    Only a model that is dear gets more than one of the threads.
    """
    model = open_with(path, settings, 1)
    model.measure(settings.max_batch_size)
    if not model.is_cheap and threads > 1:
        model = open_with(path, settings, threads)
        model.measure(settings.max_batch_size)
    return model


def open_with(path: Path, settings: Settings, threads: int) -> Model:
    """Open a file with so many threads, and test it. Raises ModelError or StartupError."""
    check_readable(path)
    model = Model.open(path, device=settings.device, threads=threads)
    model.self_test()
    return model


def sentence(place: Place, error: ModelError) -> str:
    """Say why a file cannot be served, with what ONNX Runtime said, in one line."""
    why = " ".join(str(error).removeprefix(f"{place.path.name}: ").split())
    cause = " ".join(str(error.__cause__ or "").split())
    return f"{place.name}: {why}" + (f" ({cause})" if cause not in why else "")
