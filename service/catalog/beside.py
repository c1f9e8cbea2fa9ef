"""Folders beside the models that are none: of file systems, archives and other programs.

lost+found is on every ext4 volume, __MACOSX in archives of macOS, @eaDir on disks of Synology, and
`code` in what SageMaker unpacks.
"""

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

# Whatever they hold; lost+found can be read by root alone.
_OF_SYSTEMS = frozenset(
    {
        *("lost+found", "__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin"),
        *("recycler", "system volume information", "network trash folder", "temporary items"),
        *("__pycache__", "node_modules"),
    }
)
# Unless they hold a version with its model: a file that is on its way elsewhere may lie there.
_OF_PROGRAMS = frozenset(
    {"backup", "cache", "code", "lib", "log", "logs", "scripts", "src", "temp", "tmp", "trash"}
)
_LIKE_A_VERSION = re.compile(r"v?[0-9]+([._-][0-9]+)*|latest|version.*", re.IGNORECASE)
_ONNX = re.compile(r".*\.onnx(\.[^.]*)?", re.IGNORECASE)  # also a part of one, or compressed
_LIKE_A_MODEL = re.compile(
    r"(.*\.(onnx|ort|pb|pt|pth|pkl|pickle|joblib|h5|keras|tflite|safetensors|plan|mlmodel|cbm|"
    r"ubj|gguf|pmml)|model\.(bin|json|txt|xml|npz|tar|tgz|zip)|mlmodel|config\.pbtxt)(\.[^.]*)?",
    re.IGNORECASE,
)
_MOST = 1000  # entries of a folder that are looked at


def is_of_a_system(name: str) -> bool:
    """Whether a folder of this name is no model, whatever it holds."""
    return name.lower() in _OF_SYSTEMS


def is_of_a_program(name: str) -> bool:
    """Whether a folder of this name is no model unless it holds a version with its model."""
    return name.lower() in _OF_PROGRAMS


def is_meant_as_model(folder: Path, versions: Sequence[int], *, has_name: bool) -> bool:
    """Whether a folder is a model, or somebody may take it for one, and wants to know what lacks.

    It has a version, or what looks like a version or like a model's file; or it is empty and has
    a name that a model may have (`has_name`).
    """
    if is_of_a_program(folder.name):
        return any(_holds(folder / str(each), _ONNX) for each in versions)
    if versions:
        return True
    within = _visible(folder)
    folders = [each for each in within if _is_folder(each)]
    return (
        (has_name and not within)
        or _holds(folder, _LIKE_A_MODEL)
        or any(_LIKE_A_VERSION.fullmatch(each.name) for each in folders)
        or any(_holds(each, _ONNX) for each in folders)
    )


def _holds(folder: "Path | os.DirEntry[str]", files: re.Pattern[str]) -> bool:
    return any(files.fullmatch(each.name) and not _is_folder(each) for each in _visible(folder))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to where this user may not look
        return False


def _visible(folder: "Path | os.DirEntry[str]") -> list["os.DirEntry[str]"]:
    """Return what a folder holds, but for hidden files; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [each for each in islice(entries, _MOST) if not each.name.startswith(".")]
    except OSError:
        return []
