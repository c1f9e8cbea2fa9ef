"""Loader: opens what the models folder holds, then follows it while it is served.

A version that cannot be opened or fails its self-test is reported with the reason; the others
serve. What is new or changed is opened beside what serves and then takes its place; whatever
goes wrong with it, the old one serves on.
"""

import asyncio
import ctypes
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import TypeAlias

from service.catalog.folder import (
    LEFT_OUT,
    MODEL_FILE,
    NO_FOLDER,
    Fingerprint,
    fingerprint,
    scan,
)
from service.catalog.opening import open_tested, where
from service.catalog.served import ServedModel, Version, check_replaces
from service.catalog.watch import watching
from service.engine.model import Model
from service.errors import ModelError, ServiceError, StartupError
from service.metrics import Metrics
from service.settings import Settings
from service.settings import machine as resources

logger = logging.getLogger("torchlit.repository")  # the name its lines have always had

PAUSE_S = 0.3  # between two looks at the folder; files that are equal in both are complete
LOOKS = 10  # in one reload, at files that go on changing

# A version by name and number; the number is None for what concerns a model as a whole.
Key: TypeAlias = tuple[str, int | None]
Look: TypeAlias = dict[Key, Fingerprint]  # what the folder holds


async def pause() -> None:
    """Let the time pass that is between two looks at the folder."""
    await asyncio.sleep(PAUSE_S)


class Loader:
    """Opens and swaps the versions in the folder, at start, when told, and when it changes.

    It holds none of them: `find` returns the one that is held, `put` lets another, or none, take
    its place and returns what answers no more, which the loader closes.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        find: Callable[[Key], Version | None],
        put: Callable[[Key, Version | None], ServedModel | None],
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._models_dir = settings.models_dir
        self._metrics = metrics
        self._find = find
        self._replace = put
        self._pause = pause
        self._threads = resources.available().threads(settings.workers)  # of a slow model
        self._tried: Look = {}  # the files of each version when last opened
        self.unloaded: dict[str, list[int]] = {}  # models that are not to be opened, and versions
        self._strange: set[str] = set()  # what the log has told of folders that are no version
        self._trouble = {"folder": "", "watching": ""}  # that the log has told of
        self.closing: set[asyncio.Task[None]] = set()  # what was replaced
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()  # to reload
        self._is_wanted = False  # by a caller of `reload` since the last one began
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()  # one goes on, others wait for it
        self._follower: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Open every version, then follow. Raises StartupError if there is no folder or model."""
        self._loop = asyncio.get_running_loop()
        self._tried = self._look()
        for unknown in self._settings.unknown_models({name for name, _ in self._tried}):
            logger.warning("%s", unknown)
        for (name, number), files in self._tried.items():
            if number is None:
                self._fail((name, None), str(files[0][0]))
            elif files != LEFT_OUT:
                self._open_at_start(name, number)
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer; a model that is being opened is dropped."""
        running = [each for each in (self._follower, *self._reloads) if each is not None]
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)

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
        reload = asyncio.create_task(self._reload_in_turn())
        self._reloads.add(reload)
        reload.add_done_callback(self._reloads.discard)
        await asyncio.shield(reload)  # a caller that leaves does not end it for the others

    async def _reload_in_turn(self) -> None:
        async with self._reloading:
            if self._is_wanted:
                self._is_wanted = False
                await self._reload()

    async def load(self, name: str) -> None:
        """Open a model that was unloaded, and try again what could not be opened of it."""
        async with self._reloading:
            self.unloaded.pop(name, None)
            for key in self._tried:
                version = self._find(key)
                if key[0] == name and (version is None or version.reason):
                    self._tried[key] = ()  # which no files are equal to
        await self.reload()

    async def unload(self, name: str) -> bool:
        """Close a model when it has answered what waits; its folder is ignored until `load`.

        Returns whether there is such a model.
        """
        async with self._reloading:
            keys = [key for key in self._tried if key[0] == name]
            if keys:
                self.unloaded[name] = sorted(key[1] for key in keys if key[1] and self._find(key))
            for key in keys:
                del self._tried[key]
                self._retire(key)
            await self._close_replaced()
            return name in self.unloaded

    async def _follow(self) -> None:
        """Reload whenever told to, or when the folder changes, until cancelled."""
        watch = partial(watching, self._models_dir, self._told.set, self._cannot_watch)
        while True:  # watched anew each time: links may lead elsewhere than before
            async with watch() if self._settings.watch else nullcontext():
                try:
                    await self.reload()  # what changed before it watched
                except Exception:
                    logger.exception("reload: this is a bug")
                await self._told.wait()
            self._told.clear()

    def _cannot_watch(self, error: BaseException) -> None:
        trouble = f"{self._models_dir} cannot be watched, reload with SIGHUP: {error}"
        self._tell_once("watching", trouble)

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
        await self._close_replaced()

    async def _close_replaced(self) -> None:
        """Wait until what was replaced has answered all, and its memory is given back."""
        if self.closing:
            await asyncio.wait(self.closing)
            await asyncio.to_thread(_give_back_memory)

    def _look(self) -> Look:
        """Return what the folder holds now. Raises StartupError when there is nothing."""
        look: Look = {}
        for name, found in scan(self._models_dir, self._settings.versions).items():
            for each in found.strange:
                trouble = f"model {name}: {each!r} is no version: not a whole number from 1"
                if trouble not in self._strange:
                    self._strange.add(trouble)
                    logger.warning("%s", trouble)
            if found.reason:
                look[name, None] = ((found.reason,),)
            if found.versions is None:  # it cannot be said: they stay as they are
                look |= {key: was for key, was in self._tried.items() if key[0] == name and key[1]}
            else:
                look |= {(name, number): files for number, files in found.versions.items()}
        return look

    async def _look_again(self) -> Look | None:
        """Return what the folder holds now; None, and why in the log, if all is to stay."""
        try:
            look = await asyncio.to_thread(self._look)
            if not any(number and files != NO_FOLDER for (_, number), files in look.items()):
                where = f"TORCHLIT_MODELS_DIR: {self._models_dir}"
                raise StartupError(f"{where}: no version of any model")
        except StartupError as error:
            self._tell_once("folder", f"{error}; what serves goes on")
            return None
        self._tell_once("folder", "")
        for name in self.unloaded.keys() - {name for name, _ in look}:
            del self.unloaded[name]
        return {key: files for key, files in look.items() if key[0] not in self.unloaded}

    async def _follow_folder(self, before: Look, look: Look) -> None:
        """Do what the folder says, where two looks agree: first open, then retire."""
        keys = before.keys() | look.keys() | self._tried.keys()
        changed = [key for key in keys if look.get(key) == before.get(key) != self._tried.get(key)]
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
                self._fail((name, number), str(files[0][0]))
        for key in changed:
            if key not in look:
                self._tried.pop(key, None)
                self._retire(key)
        for key, files in look.items():
            if files == LEFT_OUT and self._are_chosen_ready(key[0], look):
                self._retire(key)

    def _are_chosen_ready(self, name: str, look: Look) -> bool:
        chosen = [key for key, files in look.items() if key[0] == name and files != LEFT_OUT]
        return all((version := self._find(key)) and version.served for key in chosen)

    def _tell_of_unsettled(self, look: Look) -> None:
        reason = "its files are still being written"
        for key, files in look.items():
            if key[1] is None or files == LEFT_OUT or files == self._tried.get(key):
                continue
            old = self._find(key)
            if old is None or reason not in old.reason:
                self._fail(key, reason, old=old)

    async def _open_beside(self, name: str, number: int, files: Fingerprint) -> None:
        """Open a new or changed version, and swap; nothing if its files changed meanwhile."""
        old = self._find((name, number))
        model: Model | None = None
        reason = cause = ""
        self._metrics.expect(name, str(number))
        try:
            model = await asyncio.to_thread(self._open, name, number)
            if old is not None and old.served is not None:
                check_replaces(model, old.served.model)
        except Exception as error:
            reason, cause = _sentences(error)
        folder = self._models_dir / name / str(number)
        if await asyncio.to_thread(fingerprint, folder) != files:
            if old is None:
                self._metrics.retire(name, str(number))  # it may be gone for good
            return
        self._tried[name, number] = files
        if model is None or reason:
            self._fail((name, number), reason, cause, old)
        else:
            self._serve(name, number, model)
        self._metrics.count_reload(name, str(number), "failed" if reason else "ok")

    def _open_at_start(self, name: str, number: int) -> None:
        try:
            self._serve(name, number, self._open(name, number))
        except ModelError as error:
            self._fail((name, number), *_sentences(error))

    def _open(self, name: str, number: int) -> Model:
        """Open a version and test it, in any thread. Raises ModelError or StartupError."""
        path = self._models_dir / name / str(number) / MODEL_FILE
        return open_tested(path, name, self._settings, self._threads)

    def _serve(self, name: str, number: int, model: Model) -> None:
        card = model.card
        metrics = self._metrics.add(
            name,
            str(number),
            labels=card.labels if card else (),
            features=[feature.name for feature in card.features] if card else (),
            info={"provider": model.provider, "device": self._settings.device},
        )
        self._metrics.set_stale(name, str(number), False)
        logger.info(
            "model %s version %d: ready on %s, %s, %s",
            *(name, number, model.device, _cost(model), where(model)),
        )
        logger.info(
            "model %s version %d: runs %s: %s",
            *(name, number, _batches(model), model.why_batching),
        )
        if model.trial.failure and model.card is None:
            logger.warning(
                "model %s version %d: it could not be tried, and has no examples to be tested by: "
                "%s",
                *(name, number, model.trial.failure),
            )
        if not model.trial.is_steady:
            logger.warning(
                "model %s version %d: the same row gets other answers each time: does it draw "
                "random numbers?",
                *(name, number),
            )
        if not model.is_optimized:
            logger.warning(
                "model %s version %d: runs as it is written: with ONNX Runtime's optimizations a "
                "run changes the next; was it exported in training mode?",
                *(name, number),
            )
        for output, kind in model.left_out.items():
            logger.warning(
                "model %s version %d: output %s is left out: no protocol carries %s",
                *(name, number, output, kind),
            )
        served = ServedModel(name, number, model, metrics, self._settings)
        self._put((name, number), Version(version=number, state="ready", served=served))

    def _fail(self, key: Key, reason: str, cause: str = "", old: Version | None = None) -> None:
        """Log and show why a version could not be opened; what serves of an old one stays."""
        name, number = key
        if number is not None:
            reason = f"{name}/{number}: {reason}"
        served = old.served if old else None
        if served is not None:
            reason += "; what was opened before serves on"
            self._metrics.set_stale(name, str(number), True)
        else:
            self._metrics.add_failed(name, str(number or ""))
        logger.error("model %s%s", reason, f" ({cause})" if cause else "")
        state = "failed" if served is None else "ready"
        self._put(key, Version(version=number, state=state, reason=reason, served=served))

    def _retire(self, key: Key) -> None:
        name, number = key
        if self._find(key) is not None:
            if number is not None:
                logger.info("model %s version %d: retired", name, number)
            self._metrics.retire(name, str(number or ""))
            self._put(key, None)

    def _put(self, key: Key, version: Version | None) -> None:
        """Let a version, or none, take the place of the one before, which answers what waits."""
        replaced = self._replace(key, version)
        if replaced is not None:
            closing = asyncio.create_task(replaced.close())
            self.closing.add(closing)
            closing.add_done_callback(self.closing.discard)


def _cost(model: Model) -> str:
    what = f"{model.largest_batch} rows" if model.is_batched else "a request"
    if model.batch_s is None:
        return f"{what} in a time that is not known"
    return f"{what} in {model.batch_s * 1000:.2f} ms"


def _batches(model: Model) -> str:
    if model.is_batched:
        return f"rows of several requests together, {model.largest_batch} at most"
    return "each request by itself"


def _sentences(error: Exception) -> tuple[str, str]:
    """Return what to tell of an error, and its cause for the log; no reference to it remains.

    Its traceback holds the model that failed.
    """
    if isinstance(error, ServiceError):
        return str(error), str(error.__cause__ or "")
    return f"{MODEL_FILE}: could not be opened", f"this is a bug: {error!r}"


def _give_back_memory() -> None:
    """Let the C library return free memory to the system: glibc keeps it else."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
