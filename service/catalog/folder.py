"""The models folder: which versions it holds, and whether their files have changed.

A folder is `<name>/<version>/model.onnx`, the version a whole number from 1; weights outside
the model are the files that it names, in its folder or below. Other folders are passed over.
"""

import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from service.card import expected_version, version_of
from service.catalog.beside import is_meant_as_model, is_of_a_program, is_of_a_system
from service.engine.file import names_of, unreadable
from service.errors import ModelError, StartupError
from service.settings.versions import Versions

MODEL_FILE = "model.onnx"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # they stand in URLs, labels and files

# What the files of a version are now: another one means that some of them changed.
Fingerprint: TypeAlias = tuple[tuple[str | int, ...], ...]

NO_FOLDER: Fingerprint = (("no such folder",),)  # of a version that TORCHLIT_VERSIONS lists
LEFT_OUT: Fingerprint = (("left out by TORCHLIT_VERSIONS",),)


class Found(Struct, frozen=True):
    """What the folder holds of one model: its versions, or the reason why there are none.

    The versions are None if the folder cannot be read. `others` are folders that are no version.
    """

    versions: dict[int, Fingerprint] | None = None
    reason: str = ""
    others: list[str] = []


class Contents(Struct, frozen=True):
    """What the models folder holds of each model, by name. `others` are folders that are none."""

    models: dict[str, Found]
    others: list[str]

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each folder that is no model or no version."""
        yield from map(why_no_model, self.others)
        for name, found in self.models.items():
            for each in found.others:
                yield f"model {name}: {why_no_version(each)}"


def scan(models_dir: Path, versions: Versions) -> Contents:
    """Return what `models_dir` holds.

    Raises StartupError when it cannot be read or holds no model.
    """
    try:
        entries = sorted(models_dir.iterdir())
        folders = [each for each in entries if each.is_dir() and not each.name.startswith(".")]
    except OSError as error:
        raise StartupError(
            f"TORCHLIT_MODELS_DIR: {models_dir}: expected a folder of models, got: {error.strerror}"
        ) from error
    found = {_printable(folder.name): _find(folder, versions) for folder in folders}
    models = {name: each for name, each in found.items() if each is not None}
    others = [name for name, each in found.items() if each is None]
    if not models:
        beside = f" beside {', '.join(others)}" if others else ""
        raise StartupError(
            f"TORCHLIT_MODELS_DIR: expected folders <name>/<version>/{MODEL_FILE}, "
            f"got none in {models_dir}{beside}"
        )
    return Contents(models, others)


def why_no_model(folder: str) -> str:
    """Say why a folder in that of the models counts as none."""
    return f"folder {folder!r} is passed over: it is no model with a version such as 1/{MODEL_FILE}"


def why_no_version(folder: str) -> str:
    """Say why a folder in that of a model counts as no version."""
    return f"{folder!r} is no version: expected {expected_version(folder)}"


def _find(folder: Path, versions: Versions) -> Found | None:
    """Return what a folder holds of a model, None if it is none."""
    name = _printable(folder.name)
    has_name = _NAME.fullmatch(name) is not None
    if is_of_a_system(name):
        return None
    try:
        folders = [each.name for each in folder.iterdir() if each.is_dir()]
    except OSError as error:
        if not has_name or is_of_a_program(name):
            return None
        return Found(None, f"{name}: cannot be read: {error.strerror}")
    numbered = {each: version_of(each) for each in folders if not each.startswith(".")}
    numbers = sorted(number for number in numbered.values() if number is not None)
    others = [each for each, number in numbered.items() if number is None]
    if name not in versions.names and not is_meant_as_model(folder, numbers, has_name=has_name):
        return None
    if not has_name:
        return Found({}, f"{name!r}: expected a name of letters, digits, . _ -")
    chosen = versions.choose(name, numbers)
    if not chosen:
        reason = f"{name}: expected a version folder such as {name}/1/{MODEL_FILE}, got none"
        why = f"; {why_no_version(others[0])}" if others else ""
        return Found({}, reason + why, others)
    found = dict.fromkeys(numbers, LEFT_OUT)
    for number in chosen:
        found[number] = fingerprint(folder / str(number))
    return Found(found, others=others)


def fingerprint(folder: Path) -> Fingerprint:
    """Return what the files of a version are now.

    The time of the last change of a file's status is a part of it: files from an archive have
    the time of modification, the size and often the inode number of those they replace.
    """
    try:
        folder.stat()
    except FileNotFoundError:
        return NO_FOLDER
    except OSError as error:
        return ((error.errno or 0,),)
    model = _state(folder, MODEL_FILE)
    try:
        weights = _weights(folder / MODEL_FILE, model)
    except OSError as error:
        return model, ("", error.errno or 0)
    return (model, *(_state(folder, name) for name in weights))


def files_of(folder: str, files: Fingerprint) -> Iterator[str]:
    """Yield the paths of the files of a version, by its folder and fingerprint."""
    for name, *state in files:
        if isinstance(name, str) and state:
            yield f"{folder}/{name}"


@lru_cache(maxsize=1024)
def _weights(path: Path, state: tuple[str | int, ...]) -> list[str]:
    """Return the names of the files with a model's weights; `state` is that of the model's own."""
    return names_of(path)[1:]


def _state(folder: Path, name: str) -> tuple[str | int, ...]:
    try:
        status = (folder / name).stat()  # of the file that a link leads to
    except OSError as error:
        return name, error.errno or 0
    times = status.st_mtime_ns, status.st_ctime_ns
    return name, *times, status.st_size, status.st_ino, status.st_dev


def check_readable(path: Path) -> None:
    """Raise ModelError unless `path`, the model of a version, is a file that can be read.

    It is OutOfResources if it may be read later.
    """
    try:
        if not path.parent.is_dir():
            raise ModelError("no such folder")
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise ModelError(f"{path.name}: cannot be read: not a file")
        with path.open("rb"):
            pass
    except OSError as error:
        sentence = f"{path.name}: cannot be read: {error.strerror}"
        raise unreadable(error, sentence) from None


def _printable(name: str) -> str:
    """Escape the bytes of a folder's name that are not UTF-8: it is shown in JSON."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
