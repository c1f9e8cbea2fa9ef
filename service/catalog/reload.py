"""Reloader: opens what the models folder holds, then follows it while it is served.

A version that cannot be opened or fails its self-test is reported with the reason; the others
serve. What is new or changed is opened beside what serves and then takes its place; whatever
goes wrong with it, the old one serves on. What went wrong for a reason that may pass is tried
again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Self

from service.catalog.catalog import Catalog, Key
from service.catalog.folder import (
    LEFT_OUT,
    MODEL_FILE,
    NO_FOLDER,
    Fingerprint,
    files_of,
    fingerprint,
)
from service.catalog.follow import Follower
from service.catalog.opening import Failure, facts, failure_of, open_tested, warnings
from service.catalog.pins import Following, place_of
from service.catalog.scans import Scan, Scans
from service.catalog.served import ServedModel, Version, check_replaces, let_go
from service.catalog.shadows import Shadows
from service.engine.model import Model
from service.errors import InvalidInput, InvalidPins, ModelError, NotApproved
from service.metrics import Metrics
from service.settings import Settings, machine

logger = logging.getLogger("torchlit.repository")  # the name its lines have always had

PAUSE_S = 0.3  # between two scans of the folder; files that are equal in both are complete
SCANS = 10  # in one reload, of files that go on changing


async def pause() -> None:
    """Let the time pass that is between two scans of the folder."""
    await asyncio.sleep(PAUSE_S)


class Reloader:
    """Opens and swaps the versions in the folder, at start, when told, and when it changes.

    `async with` opens and closes them, and follows the folder.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        metrics: Metrics,
        pause: Callable[[], Awaitable[None]] = pause,
        is_replacing: bool = False,
    ) -> None:
        self._settings = settings
        self._models_dir = settings.models_dir
        self.metrics = metrics
        self.catalog = catalog
        self.shadows = Shadows(settings, catalog, metrics)
        self._pause = pause
        self._threads = machine.available().threads(settings.workers)  # of a slow model
        self._tried: Scan = {}  # the files of each version when last opened
        self.unloaded: dict[str, list[int]] = {}  # models that are not to be opened, and versions
        self._scans = Scans(settings.models_dir, settings.versions)
        self._pins = Following(settings, pause, is_replacing=is_replacing)
        self._passing: dict[Key, str] = {}  # failures that may pass, as the log named them
        self._makeshift: Scan = {}  # the files of what serves, but may do better when opened again
        self._is_told = False  # to open all again that failed
        self._closing: dict[asyncio.Task[None], str] = {}  # what was replaced, and its name
        self._follower = Follower(
            self._models_dir, is_watched=settings.watch, reload=self.reload, files=self._files
        )
        self._is_wanted = False  # by a caller of `reload` since the last one began
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()  # one goes on, others wait for it
        self._following: asyncio.Task[None]  # once it is entered

    async def __aenter__(self) -> Self:
        """Open every version, then follow.

        Raises StartupError when there is no folder, nothing in it, or no default model, or when
        it cannot be said what is approved.
        """
        self._tried = self._scans.scan({})
        await self._pins.begin()
        for unknown in self._settings.unknown_models({name for name, _ in self._tried}):
            logger.warning("%s", unknown)
        for (name, number), files in self._tried.items():
            if number is None:
                self._fail((name, None), Failure(str(files[0][0])))
            elif files != LEFT_OUT:
                self._open_at_start(name, number)
        self._settings.check_default_model(self.catalog.versions)
        self.catalog.await_all()
        self.shadows.open()
        self._following = asyncio.create_task(self._follower.follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Follow no longer, answer what waits, then close; what is being opened is dropped."""
        running = [self._following, *self._reloads]
        for each in running:
            each.cancel()
        await asyncio.wait(running)
        await self.shadows.close()
        served = [each.served for found in self.catalog.versions.values() for each in found]
        await asyncio.gather(*(each.close() for each in served if each), self.settled())

    async def settled(self) -> None:
        """Return when all that was replaced has answered, and is closed."""
        if self._closing:
            await asyncio.wait(self._closing)

    def request_reload(self) -> None:
        """Reload soon, and open again what failed. Any thread may call this, at any time."""
        self._is_told = True
        self._follower.request()

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
        """Open what the folder holds of a model, again what failed or was unloaded.

        Raises NotFound if it holds none of that name, InvalidInput with the reason if a version
        of it could not be opened.
        """
        async with self._reloading:
            self.unloaded.pop(name, None)
            for key in self._tried:
                version = self.catalog.find(key)
                if key[0] == name and (version is None or version.reason or key in self._makeshift):
                    self._tried[key] = ()  # which no files are equal to
                    self._passing.pop(key, None)
        await self.reload()
        versions = self.catalog.versions.get(name, ())
        if reasons := [each.reason for each in versions if each.reason]:
            raise InvalidInput(f"model {name}: could not be loaded: {'; '.join(reasons)}")
        self.catalog.get(name)

    async def unload(self, name: str) -> None:
        """Close a model when it has answered what waits; its folder is ignored until `load`.

        A run that goes on for longer than a request may is not waited for. Raises NotFound.
        """
        async with self._reloading:
            keys = [key for key in self._tried if key[0] == name]
            if keys:
                self.unloaded[name] = sorted(
                    key[1] for key in keys if key[1] and self.catalog.find(key)
                )
            for key in keys:
                del self._tried[key]
                self._retire(key)
            if name not in self.unloaded:
                raise self.catalog.why_not(name, None)
        closing = [task for task, of in self._closing.items() if of == name]
        if closing:  # outside the lock: its last request holds up no other model
            await asyncio.wait(closing, timeout=self._settings.request_timeout_s)

    def _files(self) -> set[str]:
        """Return the paths of the files that are followed."""
        return {
            file
            for (name, number), files in self._tried.items()
            for file in files_of(f"{self._models_dir}/{name}/{number}", files)
        } | {str(place_of(self._settings))}

    async def _reload(self) -> None:
        self._forget_failures()
        changed = await self._follow_pins()
        scanned = await self._scan_again()
        for _ in range(SCANS):
            if scanned is None or scanned == self._tried:
                break
            await self._pause()
            before, scanned = scanned, await self._scan_again()
            if scanned is not None:
                await self._follow_folder(before, scanned)
        else:
            self._report_unsettled(scanned or {})
        self._check_pins(changed)

    def _forget_failures(self) -> None:
        """Let be opened again what failed, if that may have passed or if it was told."""
        failed = self._passing.keys() | self._makeshift.keys()
        if self._is_told:
            self._is_told = False
            self._passing.clear()  # the log is to say what happens
            failed |= self.catalog.failed
        self._tried |= dict.fromkeys(failed & self._tried.keys(), ())  # no files are equal to it

    async def _scan_again(self) -> Scan | None:
        """Return what the folder holds now; None, and why in the log, if all is to stay."""
        scanned = await self._scans.again(self._tried)
        if scanned is None or self._scans.unreadable:
            self._follower.retry.later()
        if scanned is None:
            return None
        for name in self.unloaded.keys() - {name for name, _ in scanned}:
            del self.unloaded[name]
        return {key: files for key, files in scanned.items() if key[0] not in self.unloaded}

    async def _follow_folder(self, before: Scan, scanned: Scan) -> None:
        """Do what the folder says, where two scans agree: first open, then retire."""
        keys = before.keys() | scanned.keys() | self._tried.keys()
        changed = [
            key for key in keys if scanned.get(key) == before.get(key) != self._tried.get(key)
        ]
        changed.sort(key=lambda key: (key[0], key[1] or 0))
        for name, number in changed:
            files = scanned.get((name, number))
            if files is None:
                continue
            if number is not None and files not in (LEFT_OUT, NO_FOLDER):
                await self._open_beside(name, number, files)
                continue
            self._tried[name, number] = files
            if files != LEFT_OUT:
                self._fail((name, number), Failure(str(files[0][0])))
        for key in changed:
            if key not in scanned:
                self._tried.pop(key, None)
                self._retire(key)
        for key, files in scanned.items():
            if files == LEFT_OUT and self._are_chosen_ready(key[0], scanned):
                self._retire(key)

    async def _follow_pins(self) -> list[Key]:
        """Return the versions of which something else is approved than before.

        Those that are not as they should be are opened again.
        """
        try:
            changed = await self._pins.follow(self._tried)
        except InvalidPins as error:
            self._scans.warn_once("pins", f"{error}; what was approved before stays so")
            self._follower.retry.later()
            return []
        known = {*self.catalog.versions, *self.unloaded}
        self._scans.warn_once("pins", self._pins.now.why_unused(known))
        for key in changed:
            if (version := self.catalog.find(key)) is None or version.reason:
                self._tried[key] = ()  # which no files are equal to
        return changed

    def _check_pins(self, changed: list[Key]) -> None:
        """Say which of the versions serve what is approved no longer."""
        for key in changed:
            version = self.catalog.find(key)
            if version is None or version.served is None or version.reason:
                continue
            try:
                self._pins.now.of(f"{key[0]}/{key[1]}").check_all(version.served.model.files)
            except NotApproved as error:
                self._fail(key, failure_of(error), version)

    def _are_chosen_ready(self, name: str, scanned: Scan) -> bool:
        chosen = [key for key, files in scanned.items() if key[0] == name and files != LEFT_OUT]
        return all((version := self.catalog.find(key)) and version.served for key in chosen)

    def _report_unsettled(self, scanned: Scan) -> None:
        reason = "its files are still being written"
        for key, files in scanned.items():
            if key[1] is None or files == LEFT_OUT or files == self._tried.get(key):
                continue
            old = self.catalog.find(key)
            if old is None or reason not in old.reason:
                self._fail(key, Failure(reason), old)

    async def _open_beside(self, name: str, number: int, files: Fingerprint) -> None:
        """Open a new or changed version, and swap; nothing if its files changed meanwhile."""
        old = self.catalog.find((name, number))
        model: Model | None = None
        failure: Failure | None = None
        self.metrics.expect(name, str(number))
        try:
            model = await asyncio.to_thread(self._open, name, number)
            if old is not None and old.served is not None:
                check_replaces(model, old.served.model)
        except Exception as error:
            failure = failure_of(error)
        folder = self._models_dir / name / str(number)
        if await asyncio.to_thread(fingerprint, folder) != files:
            if old is None:
                self.metrics.retire(name, str(number))  # it may be gone for good
            return
        self._tried[name, number] = files
        is_again = old is not None and not old.reason
        if model and model.short_of and is_again and self._makeshift.get((name, number)) == files:
            self._follower.retry.later()
            return
        if model is not None and failure is None:
            try:
                self._serve(name, number, model)
            except ModelError as error:
                failure = failure_of(error)
        if failure is not None:
            self._fail((name, number), failure, old)
        self.metrics.count_reload(name, str(number), "failed" if failure else "ok")

    def _open_at_start(self, name: str, number: int) -> None:
        try:
            self._serve(name, number, self._open(name, number))
        except ModelError as error:
            self._fail((name, number), failure_of(error))

    def _open(self, name: str, number: int) -> Model:
        """Open a version and test it, in any thread. Raises ModelError or StartupError."""
        path = self._models_dir / name / str(number) / MODEL_FILE
        threads = 1 if (name, number) in self._settings.shadow.only_shadows else self._threads
        return open_tested(path, name, self._settings, threads, pins=self._pins.now)

    def _serve(self, name: str, number: int, model: Model) -> None:
        """Let a model serve. Raises OutOfResources."""
        metrics = self.metrics.add(
            name,
            str(number),
            labels=model.classifier.counted if model.classifier else (),
            features=[each.name for each in model.card.features] if model.card else (),
            info={"provider": model.provider, "device": model.device},
            nodes=model.assignment.nodes,
        )
        served = ServedModel(name, number, model, metrics, self._settings)
        self.metrics.set_stale(name, str(number), False)
        self.metrics.set_unapproved(name, str(number), False)
        for sentence in facts(model, self._settings):
            logger.info("model %s version %d: %s", name, number, sentence)
        for sentence in warnings(model, self._settings):
            logger.warning("model %s version %d: %s", name, number, sentence)
        key = name, number
        self._passing.pop(key, None)
        self._put(key, Version(number, served=served))
        if model.short_of:
            self._makeshift[key] = self._tried[key]
            self._follower.retry.later()

    def _fail(self, key: Key, failure: Failure, old: Version | None = None) -> None:
        """Log and show why a version could not be opened; what serves of an old one stays.

        What may pass is tried again, and logged once.
        """
        name, number = key
        reason = failure.reason if number is None else f"{name}/{number}: {failure.reason}"
        served = old.served if old else None
        if served is not None:
            reason += "; what was opened before serves on"
            self.metrics.set_stale(name, str(number), True)
        else:
            self.metrics.add_failed(name, str(number or ""))
        if number is not None:
            self.metrics.set_unapproved(name, str(number), failure.is_unapproved)
        if failure.may_pass:
            self._follower.retry.later()
        if self._passing.pop(key, "") != reason:
            again = "; it is tried again" if failure.may_pass else ""
            cause = f" ({failure.cause})" if failure.cause else ""
            logger.error("model %s%s%s", reason, again, cause)
        if failure.may_pass:
            self._passing[key] = reason
        self._put(key, Version(number, reason, served))

    def _retire(self, key: Key) -> None:
        name, number = key
        if self.catalog.find(key) is not None:
            if number is not None:
                logger.info("model %s version %d: retired", name, number)
            self.metrics.retire(name, str(number or ""))
            self._passing.pop(key, None)
            self._put(key, None)

    def _put(self, key: Key, version: Version | None) -> None:
        """Let a version, or none, take the place of the one before, which answers what waits."""
        self._makeshift.pop(key, None)
        replaced = self.catalog.put(key, version)
        self.shadows.follow(key[0])
        if replaced is not None:
            closing = asyncio.create_task(let_go(replaced))
            self._closing[closing] = key[0]
            closing.add_done_callback(self._closing.pop)
