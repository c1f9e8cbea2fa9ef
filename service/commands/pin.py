"""`pin`: approve the files of models as they are, or say which are not as they were approved.

    python -m service pin                 all models of the folder
    python -m service pin iris mnist/2    all versions of one, one version of another
    python -m service pin --check         writes nothing; exit status 1 if something differs

The digests stand in SHA256SUMS in the folder of models, or where TORCHLIT_PINS_FILE says.
`sha256sum -c` reads the same file.
"""

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from service.card import version_of
from service.catalog.folder import MODEL_FILE, scan
from service.catalog.pins import approved, place_of
from service.catalog.place import Place, files_of, find, sentence
from service.checksums import FILE_NAME, update
from service.commands.terminal import Stdout
from service.engine import file
from service.engine.contents import File
from service.errors import CannotPin, InvalidPins, ModelError, NotWritten
from service.settings import Settings
from service.words import plain


class Version(Struct, frozen=True):
    """A version of a model, and its files now."""

    name: str  # `iris/1`
    files: list[File]

    def path(self, each: File) -> str:
        """Return the path of a file, from the folder of models."""
        return posixpath.normpath(f"{self.name}/{each.name}")


def pin(models: Sequence[str], settings: Settings, *, only_check: bool) -> int:
    """Approve models, all if none is named, or check them; return the exit status.

    models: `iris`: all its versions; `iris/1`.
    Raises CannotPin, InvalidPins, NotWritten, and what `find` and `Stdout.write` raise.
    """
    versions = [_version(place) for place in _places(models, settings)]
    known = _known(settings)
    digests = {each.path(one): one.sha256 for each in versions for one in each.files}
    chosen = {each.name for each in versions} if models else None
    gone = sorted(_gone(known, chosen, settings))
    if only_check:
        return _check(digests, known, gone, settings)
    path = place_of(settings)
    try:
        update(path, digests, gone)
    except OSError as error:
        raise NotWritten(f"{path}: cannot be written: {error.strerror}") from error
    for name, digest in digests.items():
        what = {"": "new", digest: "as before"}.get(known.get(name, ""), "changed")
        Stdout().line(plain(f"{name}: sha256 {digest}, {what}"))
    for name in gone:
        Stdout().line(plain(f"{name}: no longer there, listed no longer"))
    return 0


def _places(models: Sequence[str], settings: Settings) -> Iterator[Place]:
    """Yield where the versions of models are; of all models if none is named."""
    found = scan(settings.models_dir, settings.versions).models
    for model in models or found:
        name, _, number = model.rstrip("/").partition("/")
        if number or name not in found:
            place = find(model, settings)
            if not place.model:
                raise CannotPin(f"{model}: expected a model of {settings.models_dir}, got a path")
            yield place
            continue
        for version in found[name].versions or ():
            path = settings.models_dir / name / str(version) / MODEL_FILE
            if path.exists():
                yield Place(f"{name}/{version}", path, name)


def _version(place: Place) -> Version:
    """Return the files of a version now. Raises CannotPin where it is no model, or incomplete."""
    try:
        said = file.read(place.path)
        files = files_of(place.path)
    except ModelError as error:
        raise CannotPin(sentence(place, error)) from error
    except OSError as error:
        raise CannotPin(f"{place.name}: {MODEL_FILE}: cannot be read: {error.strerror}") from error
    if missing := said.weights.keys() - {each.name for each in files}:
        raise CannotPin(f"{place.name}: its weights are in {min(missing)!r}: no such file")
    return Version(place.name, files)


def _known(settings: Settings) -> dict[str, str]:
    """Return what is approved; nothing if there is no such file yet. Raises InvalidPins."""
    try:
        return dict(approved(settings).digests)
    except InvalidPins as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise


def _gone(
    known: Mapping[str, str], chosen: Collection[str] | None, settings: Settings
) -> Iterator[str]:
    """Yield the files of the chosen versions, or of all, that are listed and not there."""
    for name in known:
        model, _, rest = name.partition("/")
        number, _, within = rest.partition("/")
        is_of_version = bool(within) and version_of(number) is not None
        is_chosen = chosen is None or f"{model}/{number}" in chosen
        if is_of_version and is_chosen and not (settings.models_dir / name).exists():
            yield name


def _check(
    digests: Mapping[str, str], known: Mapping[str, str], gone: Sequence[str], settings: Settings
) -> int:
    """Print which files are not as they were approved; return the exit status."""
    wrong = [
        f"{name}: expected sha256 {known[name]}, got {digest}"
        if name in known
        else f"{name}: not listed, sha256 {digest}"
        for name, digest in digests.items()
        if known.get(name) != digest
    ]
    wrong += [f"{name}: listed, and not there" for name in gone]
    source = FILE_NAME if settings.pins_file is None else settings.pins_file
    for line in wrong or [f"{len(digests)} files are as {source} says"]:
        Stdout().line(plain(line))
    return 1 if wrong else 0
