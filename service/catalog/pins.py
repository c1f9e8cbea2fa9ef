"""Which files of models are approved: the file of digests, and what it says of one model.

Who may write into the folder of models may change the SHA256SUMS in it too. A file elsewhere
(TORCHLIT_PINS_FILE) is out of reach.

Each worker reads the file. One that takes the place of another begins with what the others hold,
which they write down: the file may be malformed or gone by now.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from service.card import version_of
from service.catalog.folder import MODEL_FILE
from service.catalog.held import held, hold
from service.checksums import FILE_NAME, line_of, parsed
from service.engine.contents import Pins
from service.errors import InvalidPins
from service.settings import Settings
from service.words import cut

_Key: TypeAlias = tuple[str, int | None]  # of a version, catalog.py
HELD = "pins"  # a file in the folder of the workers: what is approved
_READINGS = 10  # in one reload, of a file that goes on changing


def version_in(folder: str) -> str:
    """Return the version whose folder that is, `iris/1`; nothing if it is of none."""
    name, _, number = folder.partition("/")
    return folder if name and version_of(number) is not None else ""


class Approved(Struct, frozen=True):
    """The files that are approved: digests by path from the folder of models."""

    digests: Mapping[str, str] = {}
    source: str = FILE_NAME  # as sentences name it
    are_required: bool = False
    is_there: bool = False  # whether there is such a file

    def of(self, folder: str, own: str = MODEL_FILE) -> Pins:
        """Return what the files of a model must be, by its folder, `iris/1`, and its own file."""
        within = "" if folder == "." else f"{folder}/"
        digests = {
            name.removeprefix(within): digest
            for name, digest in self.digests.items()
            if name.startswith(within)
        }
        version = version_in(folder) if own == MODEL_FILE else ""
        return Pins(digests, version, self.source, self.are_required)

    def why_unused(self, models: Set[str]) -> str:
        """Say that no file is listed of any of these models; nothing if one is, or none at all."""
        listed = {name.split("/")[0] for name in self.digests if name.count("/") > 1}
        if not self.digests or listed & models:
            return ""
        return (
            f"{self.source}: no file is listed of any model that is here: expected names such as "
            f"iris/1/{MODEL_FILE}, from the folder of models, got {cut(min(self.digests))!r}"
        )


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
    return _listed(content, where, settings)


def _listed(content: bytes, where: str, settings: Settings) -> Approved:
    source = FILE_NAME if settings.pins_file is None else "TORCHLIT_PINS_FILE"
    return Approved(parsed(content, where), source, settings.pins == "required", is_there=True)


def of_path(approved: Approved, path: Path, models_dir: Path) -> Pins | None:
    """Return what the files of the model at `path` must be; None outside the folder of models.

    Links may lead into that folder, at any part of the path: of the places that it has there, one
    of which something is listed counts.
    """
    root, folder = os.path.realpath(models_dir), path.absolute().parent
    real = (
        Path(os.path.realpath(each)) / folder.relative_to(each)
        for each in (*folder.parents, folder)
    )
    places = [os.path.relpath(each, root) for each in real]
    found = [approved.of(each, path.name) for each in places if each.split("/")[0] != ".."]
    return next((each for each in found if each.digests), next(iter(found), None))


class Following:
    """Keeps what is approved while it serves: what holds, once two readings of it agree."""

    def __init__(
        self,
        settings: Settings,
        pause: Callable[[], Awaitable[None]],
        *,
        is_replacing: bool = False,
    ) -> None:
        """`pause` lets the time pass that is between two readings; is_replacing: see `begin`."""
        self._settings = settings
        self._pause = pause
        self._is_replacing = is_replacing
        self._folder = settings.metrics_dir  # of several workers
        self.now = Approved()

    async def begin(self) -> None:
        """Read what is approved. Raises InvalidPins, unless other workers hold something."""
        others = self._held() if self._is_replacing else None
        if others is None:
            self._hold(await asyncio.to_thread(approved, self._settings))
            return
        self._hold(others)
        with contextlib.suppress(InvalidPins):  # the first reload says why
            await self.follow(())

    def _held(self) -> Approved | None:
        """Return what the other workers hold, if there is a file of digests."""
        content = held(self._folder, HELD)
        return None if content is None else _listed(content, HELD, self._settings)

    def _hold(self, found: Approved) -> None:
        self.now = found
        if found.is_there:
            lines = [f"{line_of(*each)}\n" for each in found.digests.items()]
            hold(self._folder, HELD, os.fsencode("".join(lines)))

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
        self._hold(found)
        return [
            (name, number)
            for name, number in versions
            if number and found.of(f"{name}/{number}") != before.of(f"{name}/{number}")
        ]
