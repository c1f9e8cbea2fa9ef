"""ModelRepository: names -> versions -> ServedModel. Opens what the models folder holds.

A folder is `<name>/<version>/model.onnx`, the version a whole number from 1. A version that
cannot be opened or fails its self-test is reported with the reason; the others serve.
"""

import asyncio
import logging
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batcher import Batcher, Outputs
from service.errors import ModelError, NotFound, StartupError, Unavailable
from service.metrics import Metrics, ModelMetrics
from service.model import PROVIDER_DEVICE, Model, available_cpus
from service.settings import Settings

logger = logging.getLogger("torchlit.repository")

MODEL_FILE = "model.onnx"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # they stand in URLs, labels and files
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class ServedModel:
    """One version of a model: its session, its queue, its counters."""

    def __init__(
        self, name: str, version: int, model: Model, metrics: ModelMetrics, settings: Settings
    ) -> None:
        """Take an opened and tested model. A dear one gets a thread of its own."""
        self.name = name
        self.version = version
        self.model = model
        self.card = model.card
        self.metrics = metrics
        self._executor = None if model.is_cheap else ThreadPoolExecutor(1, f"{name}-{version}")
        self.batcher = Batcher(
            self._run,
            metrics,
            max_batch_size=settings.max_batch_size,
            max_queue_rows=settings.max_queue_rows,
            max_queue_delay_s=settings.max_queue_delay_ms / 1000,
            executor=self._executor,
            max_rows_in_loop=None if model.is_cheap else model.max_rows_in_loop,
        )
        features = self.card.features if self.card else []
        self._minimum = np.array([feature.minimum for feature in features], model.input.dtype)
        self._maximum = np.array([feature.maximum for feature in features], model.input.dtype)

    async def close(self) -> None:
        """Answer what waits, then let the thread go."""
        await self.batcher.close()
        if self._executor is not None:
            self._executor.shutdown()

    def _run(self, rows: NDArray[Any]) -> Outputs:
        outputs = self.model.run(rows)
        if len(self._minimum):
            self._count_outside(rows)
        if self.card is not None and self.card.labels:
            self._count_labels(outputs[0])
        return outputs

    def _count_outside(self, rows: NDArray[Any]) -> None:
        outside = (rows < self._minimum) | (rows > self._maximum)  # (n, features)
        if outside.any():
            for feature, count in enumerate(outside.sum(axis=0).tolist()):
                self.metrics.outside[feature] += count

    def _count_labels(self, probabilities: NDArray[Any]) -> None:
        for label in probabilities.argmax(axis=1).tolist():
            self.metrics.predictions[label] += 1.0


class Version(Struct, kw_only=True, omit_defaults=True):
    """What /models says of one version: served, or why not."""

    version: int | None
    state: str  # "ready" or "failed"
    reason: str = ""
    served: ServedModel | None = None


class ModelRepository:
    """The models of one folder. `async with` opens and closes them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._served: dict[tuple[str, int | None], ServedModel] = {}
        self.versions: dict[str, list[Version]] = {}  # by name, lowest version first
        self.draining = False  # told to stop: still serving, no longer ready

    async def __aenter__(self) -> Self:
        """Open every model. Raises StartupError when there is no folder or nothing in it."""
        folders = _folders(self._settings.models_dir)
        if not folders:
            raise StartupError(
                f"TORCHLIT_MODELS_DIR: expected folders <name>/<version>/{MODEL_FILE}, "
                f"got none in {self._settings.models_dir}"
            )
        for folder in folders:
            self.versions[_printable(folder.name)] = self._open_versions(folder)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Answer what waits, then close."""
        served = [version.served for version in self._all() if version.served]
        await asyncio.gather(*(each.close() for each in served))

    def get(self, name: str, version: int | None = None) -> ServedModel:
        """Return a model that answers; the highest version that does if none is named.

        Raises NotFound for a name or version that is not there, Unavailable for one that
        could not be opened.
        """
        try:
            return self._served[name, version]
        except KeyError:
            raise self._why_not(name, version) from None

    def picture(self, name: str, version: str, file: str) -> bytes:
        """Read a PNG file that the card of a served version lists; it may block on the disk.

        Raises NotFound for a version that is no number, a picture that the card does not list
        or that is not on the disk, and whatever `get` raises.
        """
        if not _VERSION.fullmatch(version):
            got = _shown(version)
            raise NotFound(f"version: expected a whole number from 1 to 999999999, got {got}")
        card = self.get(name, int(version)).card
        where = f"model {name}: version {version}: picture"
        listed = [picture.file for picture in card.pictures] if card else []
        if file not in listed:
            known = ", ".join(listed) or "none"
            raise NotFound(f"{where}: expected one of {known}; got {_shown(file)}")
        path = self._settings.models_dir / name / version / file
        got = "none: it is missing"
        try:
            if path.is_file():  # opening a pipe would wait for ever
                return path.read_bytes()
        except OSError as error:
            got = f"one that cannot be read: {error.strerror}"
        raise NotFound(f"{where}: {file}: expected a file beside {MODEL_FILE}, got {got}")

    @property
    def names(self) -> list[str]:
        """The names of the models, also of those that failed."""
        return list(self.versions)

    def default(self, name: str) -> ServedModel | None:
        """Return the version that answers when none is named, if any does."""
        return self._served.get((name, None))

    def not_ready(self) -> dict[str, str]:
        """Return the names of which no version answers, with the reason."""
        return {
            name: "; ".join(version.reason for version in versions)
            for name, versions in self.versions.items()
            if self.default(name) is None
        }

    def _all(self) -> list[Version]:
        return [version for versions in self.versions.values() for version in versions]

    def _why_not(self, name: str, version: int | None) -> NotFound | Unavailable:
        known = ", ".join(self.versions)
        if name not in self.versions:
            return NotFound(f"model: expected one of {known}; got {_shown(name)}")
        if version is None:
            return Unavailable(f"model {name}: no version of it could be opened")
        if any(each.version == version for each in self.versions[name]):
            return Unavailable(f"model {name}: version {version} could not be opened")
        known = ", ".join(str(each.version) for each in self.versions[name] if each.version)
        got = _shown(str(version)) if version > 10**9 else version
        return NotFound(f"model {name}: version: expected one of {known or 'none'}; got {got}")

    def _open_versions(self, folder: Path) -> list[Version]:
        name = _printable(folder.name)
        if not _NAME.fullmatch(name):
            reason = f"{name!r}: expected a name of letters, digits, . _ -"
            return [self._failed(name, None, reason)]
        try:
            folders = [each.name for each in folder.iterdir() if each.is_dir()]
        except OSError as error:
            return [self._failed(name, None, f"{name}: cannot be read: {error.strerror}")]
        numbers = sorted(int(each) for each in folders if _VERSION.fullmatch(each))
        for each in folders:
            if not _VERSION.fullmatch(each) and not each.startswith("."):
                logger.warning("model %s: %r is no version: not a whole number from 1", name, each)
        if not numbers:
            reason = f"{name}: expected a version folder such as {name}/1/{MODEL_FILE}, got none"
            return [self._failed(name, None, reason)]
        return [self._open_version(name, number, folder / str(number)) for number in numbers]

    def _open_version(self, name: str, number: int, folder: Path) -> Version:
        path = folder / MODEL_FILE
        try:
            _check_readable(path)
            served = self._open(name, number, path)
        except ModelError as error:
            return self._failed(name, number, f"{name}/{number}: {error}", error.__cause__)
        self._served[name, number] = served
        self._served[name, None] = served  # ends as the highest: they come in order
        return Version(version=number, state="ready", served=served)

    def _open(self, name: str, number: int, path: Path) -> ServedModel:
        settings = self._settings
        model = Model.open(path, device=settings.device)
        model.self_test()
        model.measure(settings.max_batch_size)
        threads = max(1, available_cpus() // settings.workers)
        if not model.is_cheap and threads > 1:
            model = Model.open(path, device=settings.device, threads=threads)
            model.self_test()
            model.measure(settings.max_batch_size)
        card = model.card
        metrics = self._metrics.add(
            name,
            str(number),
            labels=card.labels if card else (),
            features=[feature.name for feature in card.features] if card else (),
            info={"provider": model.provider, "device": settings.device},
        )
        logger.info(
            "model %s version %d: ready on %s, %d rows in %.2f ms, %s",
            *(name, number, PROVIDER_DEVICE.get(model.provider, model.provider)),
            *(settings.max_batch_size, model.batch_seconds * 1000),
            "in the event loop" if model.is_cheap else f"in a thread of its own, {threads} cores",
        )
        return ServedModel(name, number, model, metrics, settings)

    def _failed(
        self, name: str, number: int | None, reason: str, cause: BaseException | None = None
    ) -> Version:
        logger.error("model %s%s", reason, f" ({cause})" if cause else "")
        self._metrics.add_failed(name, "" if number is None else str(number))
        return Version(version=number, state="failed", reason=reason)


def _folders(models_dir: Path) -> list[Path]:
    try:
        entries = sorted(models_dir.iterdir())
    except OSError as error:
        raise StartupError(
            f"TORCHLIT_MODELS_DIR: {models_dir}: expected a folder of models, got: {error.strerror}"
        ) from error
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _check_readable(path: Path) -> None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise ModelError(f"{path.name}: cannot be read: not a file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from None


def _printable(name: str) -> str:
    """Escape the bytes of a folder's name that are not UTF-8: it is shown in JSON."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
