"""The files of a model, each read once: the bytes that are checked are those that are opened.

A moment later another file may stand at the same path, or other bytes in the same file.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from msgspec import Struct

from service.engine.file import ModelFile, inside, read, said_by, unreadable
from service.errors import ModelError, NotApproved

_MOST_BYTES = 2**31 - 1  # of a message of protobuf
_SHOWN = 16  # digits of a digest


class File(Struct, frozen=True):
    """A file of a model: the .onnx, or weights that it names."""

    name: str  # from the folder of the .onnx
    bytes: int
    sha256: str


class Pins(Struct, frozen=True):
    """The digests that the files of a model must have, as somebody approved them."""

    digests: Mapping[str, str]  # SHA-256 in lower case, by the name of the file as File has it
    model: str  # that the files are of: `iris/1`; nothing if `pin` does not know it
    source: str  # where the digests stand
    are_required: bool = False  # whether a file without one is refused

    @property
    def way(self) -> str:
        """How to approve a file as it is."""
        if self.model:
            return f"approve this one with `python -m service pin {self.model}`"
        return f"write the digest of this one into {self.source}"

    def check(self, file: File, own: str) -> None:
        """Raise NotApproved unless `file`, of the model in the file `own`, is as approved."""
        expected = self.digests.get(os.path.normpath(file.name), "")
        if file.sha256 == expected or not (expected or self.are_required):
            return
        where = own if file.name == own else f"{own}: its weights in {file.name!r}"
        if not expected:
            raise NotApproved(
                f"{where}: expected a file that {self.source} lists, as TORCHLIT_PINS says "
                f"required, got one that it does not, sha256 {file.sha256[:_SHOWN]}...: {self.way}"
            )
        raise NotApproved(
            f"{where}: expected sha256 {expected[:_SHOWN]}... as {self.source} says, got "
            f"{file.sha256[:_SHOWN]}...: put the file back that was approved, or {self.way}"
        )

    def check_all(self, files: Sequence[File]) -> None:
        """Raise NotApproved unless all files of a model, its own first, are as approved."""
        for each in files:
            self.check(each, files[0].name)


class Contents(Struct, frozen=True):
    """A model as it was read: what it says, and the bytes of it and of its weights."""

    file: ModelFile
    own: bytes  # of the .onnx; or what is opened instead, plain_outputs.py
    weights: dict[str, bytes]
    files: list[File]  # the .onnx, then its weights

    @property
    def name(self) -> str:
        """The name of the .onnx."""
        return self.files[0].name


def read_contents(path: Path, pins: Pins | None = None) -> Contents:
    """Read the model at `path` and the weights that it names.

    Raises NotApproved where they differ from their pins, before anything is made of them;
    ModelError for what is no model, or too large; OSError.
    """
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        if size > _MOST_BYTES:
            read(path)  # it may be no model at all
            raise ModelError(
                f"{path.name}: it is larger than 2 GiB, which is protobuf's limit: save its "
                "weights in files of their own (onnx.save with save_as_external_data)"
            )
        own = source.read(size)  # and no more, if it grows meanwhile
    files = [_checked(path.name, own, path, pins)]
    said = said_by(BytesIO(own), len(own), path.name)
    weights = {}
    for name, content in read_weights(path, said.weights):
        files.append(_checked(name, content, path, pins))
        _check_length(path, name, len(content), said.weights[name])
        weights[name] = content
    return Contents(said, own, weights, files)


def read_weights(path: Path, weights: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of weights that the model at `path` names (`ModelFile.weights`), by name.

    ONNX Runtime would map them into memory, and then a file that is overwritten or cut short
    while it is served ends the process (SIGBUS), or changes the answers.
    Raises ModelError for one that is missing or outside the model's folder.
    """
    for name in weights:
        place = inside(path, name)
        try:
            if not place.is_file() and place.exists():  # reading a pipe would never end
                raise OSError(errno.EINVAL, "not a file")
            content = place.read_bytes()
        except OSError as error:
            got = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            folder = "/".join(path.absolute().parts[-3:-1])  # <name>/<version>
            sentence = (
                f"{path.name}: its weights are in {name!r}, expected in the folder {folder}: {got}"
            )
            raise unreadable(error, sentence) from error
        yield name, content


def _check_length(path: Path, name: str, got: int, expected: int) -> None:
    if got < expected:
        raise ModelError(
            f"{path.name}: its weights in {name!r}: expected {expected} bytes or more, "
            f"got {got}: it is cut off, or of another model"
        )


def _checked(name: str, content: bytes, path: Path, pins: Pins | None) -> File:
    file = File(name, len(content), hashlib.sha256(content).hexdigest())
    if pins is not None:
        pins.check(file, path.name)
    return file
