"""ModelRepository: names -> versions -> ServedModel. Opens what the models folder holds.

A version that cannot be opened or fails its self-test is reported with the reason; the others
serve. While it serves it follows the folder: what is new or changed is opened beside what
serves and then takes its place; whatever goes wrong with it, the old one serves on.
"""

import asyncio
import ctypes
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import Self, TypeAlias

from msgspec import Struct

from service.errors import ModelError, NotFound, ServiceError, StartupError, Unavailable
from service.folder import (
    LEFT_OUT,
    MODEL_FILE,
    NO_FOLDER,
    VERSION,
    Fingerprint,
    check_readable,
    fingerprint,
    scan,
)
from service.metrics import Metrics
from service.model import PROVIDER_DEVICE, Model, available_cpus
from service.served import ServedModel, check_replaces
from service.settings import Settings
from service.watching import watching

logger = logging.getLogger("torchlit.repository")

PAUSE_S = 0.3  # between two looks at the folder; files that are equal in both are complete
LOOKS = 10  # in one reload, at files that go on changing

# A version by name and number; the number is None for what concerns a model as a whole.
Key: TypeAlias = tuple[str, int | None]


class Version(Struct, kw_only=True, omit_defaults=True):
    """What /models says of one version: served, or why not; or why its newer file is not."""

    version: int | None
    state: str  # "ready" or "failed"
    reason: str = ""
    served: ServedModel | None = None


async def pause() -> None:
    """Let the time pass that is between two looks at the folder."""
    await asyncio.sleep(PAUSE_S)


class ModelRepository:
    """The models of one folder. `async with` opens and closes them, and follows the folder."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        pause: Callable[[], Awaitable[None]] = pause,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._pause = pause
        self._threads = max(1, available_cpus() // settings.workers)  # of a dear model
        self._served: dict[Key, ServedModel] = {}
        self.versions: dict[str, list[Version]] = {}  # by name, lowest version first
        self.draining = False  # told to stop: still serving, no longer ready
        self._awaited: set[str] = set()  # models without which it is not ready
        self._tried: dict[Key, Fingerprint] = {}  # the files of each version when last opened
        self._strange: set[tuple[str, str]] = set()  # folders that the log has told of
        self._trouble = {"folder": "", "watching": ""}  # that the log has told of
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()  # to reload
        self._is_wanted = False  # by a caller of `reload` since the last one began
        self._reloading = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open every model. Raises StartupError when there is no folder or nothing in it."""
        self._loop = asyncio.get_running_loop()
        self._tried = self._look()
        self._awaited = {name for name, _ in self._tried}
        for name in sorted(self._settings.versions.names - self._awaited):
            logger.warning("TORCHLIT_VERSIONS: %r: no such model", name)
        for (name, number), files in self._tried.items():
            if number is None:
                self._put(name, None, self._failed(name, None, _reason(files)))
            elif files != LEFT_OUT:
                self._put(name, number, self._open_at_start(name, number))
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Answer what waits, then close."""
        if self._follower is not None:
            self._follower.cancel()  # a model that is being opened is dropped
            await asyncio.wait([self._follower])
        served = [each.served for versions in self.versions.values() for each in versions]
        await asyncio.gather(*(each.close() for each in served if each), *self._closing)

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
        if not VERSION.fullmatch(version):
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

    @property
    def is_ready(self) -> bool:
        """Whether every model has a version that answers, of those there at start or served since.

        A model that comes later and cannot be opened changes nothing for the others.
        """
        return all(self.default(name) for name in self._awaited)

    def not_ready(self) -> dict[str, str]:
        """Return the names of which no version answers, with the reason."""
        return {
            name: "; ".join(version.reason for version in versions)
            for name, versions in self.versions.items()
            if self.default(name) is None
        }

    def request_reload(self) -> None:
        """Reload soon. A signal handler may call this, at any time."""
        if self._loop is None:
            self._told.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.set)

    async def reload(self) -> None:
        """Open what is new or changed in the folder, swap, and close what was replaced or is gone.

        Of those who call this at the same time, one goes after the other; those who came while
        one was at it share the next.
        """
        self._is_wanted = True
        async with self._reloading:
            if self._is_wanted:
                self._is_wanted = False
                await self._reload()

    async def _follow(self) -> None:
        """Reload whenever told to, or when the folder changes, until cancelled."""
        watch = partial(watching, self._settings.models_dir, self._told.set, self._cannot_watch)
        while True:  # watched anew each time: links may lead elsewhere than before
            async with watch() if self._settings.watch else nullcontext():
                try:
                    await self.reload()  # what changed before it watched
                except Exception:
                    logger.exception("reload: this is a bug")
                await self._told.wait()
            self._told.clear()

    def _cannot_watch(self, error: BaseException) -> None:
        self._tell_once(
            "watching",
            f"{self._settings.models_dir} cannot be watched, reload with SIGHUP: {error}",
        )

    def _tell_once(self, what: str, trouble: str) -> None:
        if trouble and trouble != self._trouble[what]:
            logger.warning("%s", trouble)
        self._trouble[what] = trouble

    async def _reload(self) -> None:
        look = await self._look_again()
        for _ in range(LOOKS):
            if look is None or look == self._tried:
                break
            await self._pause()
            before, look = look, await self._look_again()
            if look is not None:
                await self._follow_folder(before, look)
        else:
            self._tell_of_unsettled(look or {})
        if self._closing:
            await asyncio.wait(self._closing)
            await asyncio.to_thread(_give_back_memory)

    def _look(self) -> dict[Key, Fingerprint]:
        """Return what the folder holds now. Raises StartupError when there is nothing."""
        look: dict[Key, Fingerprint] = {}
        for name, found in scan(self._settings.models_dir, self._settings.versions).items():
            for each in found.strange:
                if (name, each) not in self._strange:
                    self._strange.add((name, each))
                    logger.warning(
                        "model %s: %r is no version: not a whole number from 1", name, each
                    )
            if found.reason:
                look[name, None] = ((found.reason,),)
            if found.versions is None:  # it cannot be said: they stay as they are
                look |= {key: was for key, was in self._tried.items() if key[0] == name and key[1]}
            else:
                look |= {(name, number): files for number, files in found.versions.items()}
        return look

    async def _look_again(self) -> dict[Key, Fingerprint] | None:
        """Return what the folder holds now; None, and why in the log, if all is to stay."""
        try:
            look = await asyncio.to_thread(self._look)
            if not any(number and files != NO_FOLDER for (_, number), files in look.items()):
                models_dir = self._settings.models_dir
                raise StartupError(f"TORCHLIT_MODELS_DIR: {models_dir}: no version of any model")
        except StartupError as error:
            self._tell_once("folder", f"{error}; what serves goes on")
            return None
        self._tell_once("folder", "")
        return look

    async def _follow_folder(
        self, before: dict[Key, Fingerprint], look: dict[Key, Fingerprint]
    ) -> None:
        """Do what the folder says, where two looks agree: first open, then retire."""
        changed = [
            key
            for key in before.keys() | look.keys() | self._tried.keys()
            if look.get(key) == before.get(key) != self._tried.get(key)
        ]
        changed.sort(key=lambda key: (key[0], key[1] or 0))
        for name, number in changed:
            files = look.get((name, number))
            if files is None:
                continue
            if number is not None and files not in (LEFT_OUT, NO_FOLDER):
                await self._open_beside(name, number, files)
                continue
            self._tried[name, number] = files
            if files != LEFT_OUT:
                where = "" if number is None else f"{name}/{number}: "
                self._put(name, number, self._failed(name, number, where + _reason(files)))
        for name, number in changed:
            if (name, number) not in look:
                self._tried.pop((name, number), None)
                self._retire(name, number)
        for name, number in look:
            if look[name, number] == LEFT_OUT and self._are_chosen_ready(name, look):
                self._retire(name, number)

    def _are_chosen_ready(self, name: str, look: dict[Key, Fingerprint]) -> bool:
        chosen = [key for key, files in look.items() if key[0] == name and files != LEFT_OUT]
        return all(key in self._served for key in chosen)

    def _tell_of_unsettled(self, look: dict[Key, Fingerprint]) -> None:
        for (name, number), files in look.items():
            if number is None or files == LEFT_OUT or files == self._tried.get((name, number)):
                continue
            old = self._find(name, number)
            reason = f"{name}/{number}: its files are still being written"
            if old is None or not old.reason.startswith(reason):
                self._put(name, number, self._failed(name, number, reason, old=old))

    async def _open_beside(self, name: str, number: int, files: Fingerprint) -> None:
        """Open a new or changed version, and swap; nothing if its files changed meanwhile."""
        old = self._find(name, number)
        model: Model | None = None
        reason = cause = ""
        try:
            model = await asyncio.to_thread(self._open, name, number)
            if old is not None and old.served is not None:
                check_replaces(model, old.served.model)
        except Exception as error:
            reason, cause = _sentences(error)
        folder = self._settings.models_dir / name / str(number)
        if await asyncio.to_thread(fingerprint, folder) != files:
            return
        self._tried[name, number] = files
        if model is None or reason:
            version = self._failed(name, number, f"{name}/{number}: {reason}", cause, old=old)
        else:
            version = self._serve(name, number, model)
        self._put(name, number, version)
        self._metrics.count_reload(name, str(number), "failed" if reason else "ok")

    def _open_at_start(self, name: str, number: int) -> Version:
        try:
            return self._serve(name, number, self._open(name, number))
        except ModelError as error:
            reason, cause = _sentences(error)
            return self._failed(name, number, f"{name}/{number}: {reason}", cause)

    def _open(self, name: str, number: int) -> Model:
        """Open a version and test it, in any thread. Raises ModelError or StartupError."""
        settings = self._settings
        path = settings.models_dir / name / str(number) / MODEL_FILE
        check_readable(path)
        model = Model.open(path, device=settings.device)
        model.self_test()
        model.measure(settings.max_batch_size)
        if not model.is_cheap and self._threads > 1:
            model = Model.open(path, device=settings.device, threads=self._threads)
            model.self_test()
            model.measure(settings.max_batch_size)
        return model

    def _serve(self, name: str, number: int, model: Model) -> Version:
        card = model.card
        metrics = self._metrics.add(
            name,
            str(number),
            labels=card.labels if card else (),
            features=[feature.name for feature in card.features] if card else (),
            info={"provider": model.provider, "device": self._settings.device},
        )
        self._metrics.set_stale(name, str(number), False)
        in_thread = f"in a thread of its own, {self._threads} cores"
        logger.info(
            "model %s version %d: ready on %s, %d rows in %.2f ms, %s",
            *(name, number, PROVIDER_DEVICE.get(model.provider, model.provider)),
            *(self._settings.max_batch_size, model.batch_seconds * 1000),
            "in the event loop" if model.is_cheap else in_thread,
        )
        served = ServedModel(name, number, model, metrics, self._settings)
        return Version(version=number, state="ready", served=served)

    def _failed(
        self,
        name: str,
        number: int | None,
        reason: str,
        cause: str = "",
        *,
        old: Version | None = None,
    ) -> Version:
        """Log why a version could not be opened; return it as it is now: the old one may serve."""
        version = "" if number is None else str(number)
        if old is not None and old.served is not None:
            reason += "; what was opened before serves on"
            self._metrics.set_stale(name, version, True)
        else:
            self._metrics.add_failed(name, version)
        logger.error("model %s%s", reason, f" ({cause})" if cause else "")
        if old is not None and old.served is not None:
            return Version(version=number, state="ready", reason=reason, served=old.served)
        return Version(version=number, state="failed", reason=reason)

    def _find(self, name: str, number: int | None) -> Version | None:
        return next((each for each in self.versions.get(name, ()) if each.version == number), None)

    def _retire(self, name: str, number: int | None) -> None:
        if self._find(name, number) is not None:
            if number is not None:
                logger.info("model %s version %d: retired", name, number)
            self._metrics.retire(name, "" if number is None else str(number))
            self._put(name, number, None)

    def _put(self, name: str, number: int | None, version: Version | None) -> None:
        """Let a version, or none, take the place of the one before, which answers what waits."""
        old = self._find(name, number)
        versions = [each for each in self.versions.get(name, ()) if each.version != number]
        if version is not None:
            versions.append(version)
        versions.sort(key=lambda each: each.version or 0)
        # New objects: other threads may be reading those before.
        self.versions = dict(sorted((self.versions | {name: versions}).items()))
        if not versions:
            del self.versions[name]
        self._index()
        if self.default(name):
            self._awaited.add(name)
        elif version is None and not any(each.version for each in versions):
            self._awaited.discard(name)  # it was taken away
        if old is not None and old.served and old.served is not (version and version.served):
            closing = asyncio.create_task(old.served.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _index(self) -> None:
        served: dict[Key, ServedModel] = {}
        for name, versions in self.versions.items():
            for each in versions:
                if each.served is not None:
                    served[name, each.version] = served[name, None] = each.served
        self._served = served  # None is the highest: they come in order

    def _why_not(self, name: str, version: int | None) -> NotFound | Unavailable:
        entries = self.versions
        known = ", ".join(entries)
        if name not in entries:
            return NotFound(f"model: expected one of {known}; got {_shown(name)}")
        if version is None:
            return Unavailable(f"model {name}: no version of it could be opened")
        if any(each.version == version for each in entries[name]):
            return Unavailable(f"model {name}: version {version} could not be opened")
        known = ", ".join(str(each.version) for each in entries[name] if each.version)
        got = _shown(str(version)) if version > 10**9 else version
        return NotFound(f"model {name}: version: expected one of {known or 'none'}; got {got}")


def _sentences(error: Exception) -> tuple[str, str]:
    """Return what to tell of an error, and its cause for the log; no reference to it remains.

    Its traceback holds the model that failed.
    """
    if isinstance(error, ServiceError):
        return str(error), str(error.__cause__ or "")
    return f"{MODEL_FILE}: could not be opened", f"this is a bug: {error!r}"


def _reason(files: Fingerprint) -> str:
    return str(files[0][0])


def _give_back_memory() -> None:
    """Let the C library return free memory to the system: glibc keeps it else."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
