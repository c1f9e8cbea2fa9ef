"""Scans: what the folder holds, again and again while it is served, and what the log says of it."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from service.catalog.catalog import Key
from service.catalog.folder import NO_FOLDER, Fingerprint, scan
from service.errors import StartupError
from service.settings.versions import Versions

logger = logging.getLogger("torchlit.repository")  # that of the Reloader

Scan: TypeAlias = dict[Key, Fingerprint]  # what the folder holds


class Scans:
    """Scans a folder, and says once what is wrong with it."""

    def __init__(self, models_dir: Path, versions: Versions) -> None:
        self._models_dir = models_dir
        self._versions = versions
        self._trouble: dict[str, str] = {}  # that the log has named, by what it is of
        self.unreadable: list[str] = []  # models whose folders could not be read

    def scan(self, tried: Mapping[Key, Fingerprint]) -> Scan:
        """Return what the folder holds now; of what cannot be read what was `tried`.

        Raises StartupError when there is nothing.
        """
        scanned: Scan = {}
        unreadable = []
        contents = scan(self._models_dir, self._versions)
        for trouble in contents.warnings():
            self.warn_once(trouble, trouble)
        for name, found in contents.models.items():
            if found.reason:
                scanned[name, None] = ((found.reason,),)
            if found.versions is None:  # it cannot be said: they stay as they are
                unreadable.append(name)
                scanned |= {key: was for key, was in tried.items() if key[0] == name and key[1]}
            else:
                scanned |= {(name, number): files for number, files in found.versions.items()}
        self.unreadable = unreadable
        return scanned

    async def again(self, tried: Mapping[Key, Fingerprint]) -> Scan | None:
        """Return what the folder holds now; None, and why in the log, if all is to stay."""
        try:
            scanned = await asyncio.to_thread(self.scan, tried)
            if not any(number and files != NO_FOLDER for (_, number), files in scanned.items()):
                where = f"TORCHLIT_MODELS_DIR: {self._models_dir}"
                raise StartupError(f"{where}: no version of any model")
        except StartupError as error:
            self.warn_once("folder", f"{error}; what serves goes on")
            return None
        self.warn_once("folder", "")
        return scanned

    def warn_once(self, what: str, trouble: str) -> None:
        """Warn of what is wrong with something, unless it was the last said of that."""
        if trouble and trouble != self._trouble.get(what):
            logger.warning("%s", trouble)
        self._trouble[what] = trouble
