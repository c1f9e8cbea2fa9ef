"""Which files of models are approved: the file of digests, and what it says of one model.

Who may write into the folder of models may change the SHA256SUMS in it too. A file elsewhere
(TORCHLIT_PINS_FILE) is out of reach.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from service.checksums import FILE_NAME, parsed
from service.engine.contents import Pins
from service.errors import InvalidPins
from service.settings import Settings

_Key: TypeAlias = tuple[str, int | None]  # of a version, catalog.py
_READINGS = 10  # in one reload, of a file that goes on changing


class Approved(Struct, frozen=True):
    """The files that are approved: digests by path from the folder of models."""

    digests: Mapping[str, str] = {}
    source: str = FILE_NAME  # as sentences name it
    are_required: bool = False
    is_there: bool = False  # whether there is such a file

    def of(self, model: str) -> Pins:
        """Return what the files of a model must be: `iris/1`."""
        within = f"{model}/"
        digests = {
            name.removeprefix(within): digest
            for name, digest in self.digests.items()
            if name.startswith(within)
        }
        return Pins(digests, model, self.source, self.are_required)


def place_of(settings: Settings) -> Path:
    """Return where the file of digests is, or would be."""
    return settings.pins_file or settings.models_dir / FILE_NAME


def approved(settings: Settings) -> Approved:
    """Return what is approved now.

    Raises InvalidPins where the file cannot be read or has a line that is none, and where there
    is none though TORCHLIT_PINS or TORCHLIT_PINS_FILE wants one.
    """
    path, are_required = place_of(settings), settings.pins == "required"
    where = str(path) if settings.pins_file is None else f"TORCHLIT_PINS_FILE: {path}"
    source = FILE_NAME if settings.pins_file is None else "TORCHLIT_PINS_FILE"
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise InvalidPins(f"{where}: cannot be read: not a file")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if settings.pins_file is None and not are_required:
            return Approved()
        because = ", as TORCHLIT_PINS says required" if are_required else ""
        raise InvalidPins(
            f"{where}: expected a file of digests{because}, got: {error.strerror}; "
            "`python -m service pin` writes one"
        ) from error
    except OSError as error:
        raise InvalidPins(f"{where}: cannot be read: {error.strerror}") from error
    return Approved(parsed(content, where), source, are_required, is_there=True)


def of_path(approved: Approved, path: Path, models_dir: Path) -> Pins | None:
    """Return what the files of the model at `path` must be; None outside the folder of models."""
    folder = os.path.relpath(path.absolute().parent, models_dir.absolute())
    return None if folder.split("/")[0] == ".." else approved.of(folder)


class Following:
    """Keeps what is approved while it serves: what holds, once two readings of it agree."""

    def __init__(self, settings: Settings, pause: Callable[[], Awaitable[None]]) -> None:
        """`pause` lets the time pass that is between two readings."""
        self._settings = settings
        self._pause = pause
        self.now = Approved()

    def begin(self) -> None:
        """Read what is approved. Raises InvalidPins."""
        self.now = approved(self._settings)

    async def follow(self, versions: Iterable[_Key]) -> list[_Key]:
        """Take over what is approved now; return the versions of which it is something else.

        Raises InvalidPins where the file is none, or gone: then what was approved stays so.
        """
        before = self.now
        found = await asyncio.to_thread(approved, self._settings)
        for _ in range(_READINGS):
            if found == before:
                break
            await self._pause()
            last, found = found, await asyncio.to_thread(approved, self._settings)
            if found == last:
                break
        else:
            raise InvalidPins(f"{place_of(self._settings)}: is still being written")
        if before.is_there and not found.is_there:
            raise InvalidPins(f"{place_of(self._settings)}: is gone; an empty one lists nothing")
        self.now = found
        return [
            (name, number)
            for name, number in versions
            if number and found.of(f"{name}/{number}") != before.of(f"{name}/{number}")
        ]
