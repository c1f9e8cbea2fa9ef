"""Catalog: names -> versions -> ServedModel. reload.py fills it."""

from collections.abc import Set
from pathlib import Path
from typing import TypeAlias

from service.card import LAST_VERSION, VERSION, expected_version
from service.catalog.folder import MODEL_FILE
from service.catalog.served import ServedModel, Version
from service.catalog.split import Splits, Ticket
from service.errors import NotFound, Unavailable
from service.words import cut

# A version by name and number; the number is None for what concerns a model as a whole.
Key: TypeAlias = tuple[str, int | None]


class Catalog:
    """The models that there are, and which of them serve now."""

    def __init__(
        self,
        models_dir: Path,
        default_model: str | None = None,
        only_shadows: Set[tuple[str, int]] = frozenset(),
        splits: Splits | None = None,
    ) -> None:
        """only_shadows: versions that answer who names them, and nobody else.

        splits: by which weights versions answer where none is named; None: there are none.
        """
        self._only_shadows = only_shadows
        self._models_dir = models_dir
        self._default_model = default_model
        self.splits = splits
        self._served: dict[Key, ServedModel] = {}  # here None is the version that answers
        self.versions: dict[str, list[Version]] = {}  # by name, lowest version first
        self._awaited: set[str] = set()  # models without which it is not ready

    def get(self, name: str, version: int | None = None) -> ServedModel:
        """Return a model that answers; the highest version that does if none is named, no shadow.

        Who uses it over more than a turn of the event loop holds it: `with catalog.get(...)`.
        Raises NotFound for a name or version that is not there, Unavailable for one that
        could not be opened.
        """
        try:
            return self._served[name, version]
        except KeyError:
            raise self.why_not(name, version) from None

    def chosen(self, name: str, ticket: Ticket) -> ServedModel:
        """Return the version that answers a request which names none: by weight, if it has some.

        Where none that has a weight is ready the highest answers, as without weights: a caller who
        named no version is better served by another one than by none. Raises what `get` raises.
        """
        served = None if self.splits is None else self.splits.take(name, ticket)
        return self.get(name) if served is None else served

    def named(self, name: str, version: str | None) -> ServedModel:
        """Return a model by the words of a path; as `get` else."""
        if version is None:
            return self.get(name)
        if not VERSION.fullmatch(version):
            got = _shown(version)
            raise NotFound(f"version: expected {expected_version(version)}, got {got}")
        return self.get(name, int(version))

    def plot(self, name: str, version: str, file: str) -> bytes:
        """Read a PNG file that the card of a served version lists; it may block on the disk.

        Raises NotFound for a version that is no number, a plot that the card does not list or
        that is not on the disk, and whatever `get` raises.
        """
        card = self.named(name, version).card
        where = f"model {name}: version {version}: plot"
        listed = [plot.file for plot in card.pictures] if card else []
        if file not in listed:
            known = ", ".join(listed) or "none"
            raise NotFound(f"{where}: expected one of {known}; got {_shown(file)}")
        path = self._models_dir / name / version / file
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

    @property
    def unnamed(self) -> str | None:
        """The name of the model that is meant when none is named, if one is.

        It is the only one, but for those that came later and have not been served yet.
        """
        if self._default_model is not None or len(self._awaited) != 1:
            return self._default_model
        return next(iter(self._awaited))

    def default(self, name: str) -> ServedModel | None:
        """Return the version that answers when none is named, if any does."""
        return self._served.get((name, None))

    @property
    def is_ready(self) -> bool:
        """Whether every model has a version that answers, of those there at start or served since.

        A model that comes later and cannot be opened changes nothing for the others.
        """
        return not any(self._why_not_ready(name) for name in self._awaited)

    def await_all(self) -> None:
        """Be not ready without any of the models that there are now."""
        self._awaited = set(self.versions)

    def not_ready(self) -> dict[str, str]:
        """Return the names of which no version answers now, with the reason."""
        reasons = {name: self._why_not_ready(name) for name in self.versions}
        return {name: reason for name, reason in reasons.items() if reason}

    def _why_not_ready(self, name: str) -> str:
        served = self.default(name)
        if served is not None:
            return served.why_not_ready
        reasons = "; ".join(version.reason for version in self.versions.get(name, ()))
        return reasons or f"{name}: there is none"

    @property
    def failed(self) -> set[Key]:
        """The versions whose file could not be opened, also where an older one serves."""
        return {
            (name, each.version)
            for name, versions in self.versions.items()
            for each in versions
            if each.reason and each.version is not None
        }

    def find(self, key: Key) -> Version | None:
        """Return what is said of a version."""
        name, number = key
        return next((each for each in self.versions.get(name, ()) if each.version == number), None)

    def put(self, key: Key, version: Version | None) -> ServedModel | None:
        """Let a version, or none, take the place of the one before; return what answers no more."""
        name, number = key
        old = self.find(key)
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
        if old is None or old.served is (version and version.served):
            return None
        return old.served

    def _index(self) -> None:
        served: dict[Key, ServedModel] = {}
        for name, versions in self.versions.items():
            for each in versions:
                if each.served is not None:
                    served[name, each.version] = each.served
                    if (name, each.version) not in self._only_shadows:
                        served[name, None] = each.served  # the highest: they come in order
        self._served = served
        if self.splits is not None:
            self.splits.follow(served)

    def why_not(self, name: str, version: int | None) -> NotFound | Unavailable:
        """Return what to raise for a model that does not answer."""
        entries = self.versions
        known = ", ".join(entries) or "none"
        if name not in entries:
            return NotFound(f"model: expected one of {known}; got {_shown(name)}")
        if version is None:
            return Unavailable(f"model {name}: no version of it could be opened")
        if any(each.version == version for each in entries[name]):
            return Unavailable(f"model {name}: version {version} could not be opened")
        known = ", ".join(str(each.version) for each in entries[name] if each.version)
        got = _shown(str(version)) if version > LAST_VERSION else version
        return NotFound(f"model {name}: version: expected one of {known or 'none'}; got {got}")


def _shown(text: str) -> str:
    return repr(cut(text))
