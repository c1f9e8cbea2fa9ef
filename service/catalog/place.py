"""Where a model is that somebody names, and what its files are."""

import errno
import hashlib
import os
import stat
from pathlib import Path

from msgspec import Struct

from service.card import expected_version, version_of
from service.catalog.folder import LEFT_OUT, MODEL_FILE, scan
from service.engine.contents import File
from service.engine.file import names_of
from service.errors import ModelError, NotFound
from service.settings import Settings
from service.words import did_you_mean


class Place(Struct, frozen=True):
    """Where a model is: its file, and what to call it, `iris/1` or the path that was given."""

    name: str
    path: Path
    model: str = ""  # its name in the models folder, if it is there


def find(model: str, settings: Settings) -> Place:
    """Return where `model` is: a path that ends in .onnx, `iris/1`, or `iris`: the highest version.

    Of the versions that TORCHLIT_VERSIONS leaves out, and of shadows, none is the highest. Raises
    NotFound, and StartupError where there is no models folder.
    """
    if model.endswith(".onnx"):
        return Place(model, Path(model))
    folder = settings.models_dir
    name, _, number = model.rstrip("/").partition("/")
    models = scan(folder, settings.versions).models
    if name not in models:
        hint = did_you_mean(name, list(models))
        raise NotFound(f"{model}: no such model in {folder}, nor a file that ends in .onnx{hint}")
    found = models[name]
    if found.reason:
        raise NotFound(found.reason)
    versions = found.versions or {}
    if not number:
        opened = [each for each, files in versions.items() if files != LEFT_OUT]
        beside = settings.shadow.only_shadows
        number = str(max([each for each in opened if (name, each) not in beside] or opened))
    elif version_of(number) is None:
        raise NotFound(f"{model}: version: expected {expected_version(number)}, got {number!r}")
    elif int(number) not in versions:
        known = ", ".join(map(str, versions)) or "none"
        raise NotFound(f"{model}: version: expected one of {known}; got {number!r}")
    return Place(f"{name}/{number}", folder / name / number / MODEL_FILE, name)


def files_of(path: Path) -> list[File]:
    """Return the files of a model as they are now, without opening it.

    Raises ModelError where one cannot be read.
    """
    try:
        return [
            file_at(path.parent / each, each)
            for each in names_of(path)
            if (path.parent / each).is_file()
        ]
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error


def file_at(path: Path, name: str) -> File:
    """Return the file at `path` as it is now, called `name`. Raises OSError, also for no file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for ever
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file")
        return File(name, status.st_size, hashlib.file_digest(file, "sha256").hexdigest())


def sentence(place: Place, error: ModelError) -> str:
    """Say why a file cannot be served, with what ONNX Runtime said, in one line."""
    why = " ".join(str(error).removeprefix(f"{place.path.name}: ").split())
    cause = " ".join(str(error.__cause__ or "").split())
    return f"{place.name}: {why}" + (f" ({cause})" if cause not in why else "")
