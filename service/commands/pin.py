"""`pin`: approve the files of models as they are, or say which are not as they were approved.

    python -m service pin                 all models of the folder
    python -m service pin iris mnist/2    all versions of one, one version of another
    python -m service pin --check         writes nothing; exit status 1 if something differs

The digests stand in SHA256SUMS in the folder of models, or where TORCHLIT_PINS_FILE says.
`sha256sum -c` reads the same file.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from service.catalog.folder import MODEL_FILE, NO_FOLDER, Found, check_readable, scan
from service.catalog.pins import approved, place_of, version_in
from service.catalog.place import Place, file_at, files_of, find, sentence
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
    known = _known(settings)
    versions, wrong = _versions(models, known, settings)
    digests = {each.path(one): one.sha256 for each in versions for one in each.files}
    within = tuple(f"{model.rstrip('/')}/" for model in models) or ("",)
    chosen = {name: digest for name, digest in known.items() if name.startswith(within)}
    if only_check:
        return _check(digests, chosen, wrong, settings)
    if wrong:
        raise CannotPin("; ".join(wrong))
    gone = sorted(name for name in chosen if _is_of_version(name) and _is_gone(name, settings))
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


def _versions(
    models: Sequence[str], known: Mapping[str, str], settings: Settings
) -> tuple[list[Version], list[str]]:
    """Return versions of models, of all if none is named, and why others cannot be approved."""
    found = scan(settings.models_dir, settings.versions).models
    versions = []
    wrong = [found[name].reason for name in models or found if name in found]
    for place in _places(models, found, known, settings):
        try:
            versions.append(_version(place))
        except CannotPin as error:
            wrong.append(str(error))
    return versions, [each for each in wrong if each]


def _places(
    models: Sequence[str], found: Mapping[str, Found], known: Mapping[str, str], settings: Settings
) -> Iterator[Place]:
    """Yield where the versions of models are, without those that are listed and gone."""
    for model in models or found:
        name, _, number = model.rstrip("/").partition("/")
        if number or name not in found:
            place = find(model, settings)
            if not place.model:
                raise CannotPin(f"{model}: expected a model of {settings.models_dir}, got a path")
            yield place
            continue
        for version, files in (found[name].versions or {}).items():
            own = f"{name}/{version}/{MODEL_FILE}"
            if files != NO_FOLDER and not (own in known and _is_gone(own, settings)):
                yield Place(f"{name}/{version}", settings.models_dir / own, name)


def _version(place: Place) -> Version:
    """Return the files of a version now. Raises CannotPin where it is no model, or incomplete."""
    try:
        check_readable(place.path)
        said = file.read(place.path)
        files = files_of(place.path)
    except ModelError as error:
        raise CannotPin(sentence(place, error)) from error
    except OSError as error:
        raise CannotPin(f"{place.name}: {MODEL_FILE}: cannot be read: {error.strerror}") from error
    if missing := said.weights.keys() - {each.name for each in files}:
        got = "not a file" if (place.path.parent / min(missing)).exists() else "no such file"
        raise CannotPin(f"{place.name}: its weights are in {min(missing)!r}: {got}")
    return Version(place.name, files)


def _known(settings: Settings) -> dict[str, str]:
    """Return what is approved; nothing if there is no such file yet. Raises InvalidPins."""
    try:
        return dict(approved(settings).digests)
    except InvalidPins as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise


def _is_of_version(name: str) -> bool:
    """Whether a file that is listed is in the folder of a version: other lines are not ours."""
    model, _, rest = name.partition("/")
    number, _, within = rest.partition("/")
    return bool(within) and bool(version_in(f"{model}/{number}"))


def _is_gone(name: str, settings: Settings) -> bool:
    try:
        (settings.models_dir / name).stat()
    except OSError as error:  # of what cannot be read nobody can say
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    return False


def _check(
    digests: Mapping[str, str], known: Mapping[str, str], wrong: Sequence[str], settings: Settings
) -> int:
    """Print what is not as it was approved, also of other lines; return the exit status."""
    others = [_differs(name, known[name], settings) for name in known if name not in digests]
    said = [
        f"{name}: expected sha256 {known[name]}, got {digest}"
        if name in known
        else f"{name}: not listed, sha256 {digest}"
        for name, digest in digests.items()
        if known.get(name) != digest
    ]
    said += [*filter(None, others), *wrong]
    count = len(digests) + len(others)
    source = FILE_NAME if settings.pins_file is None else settings.pins_file
    right = f"{count} file is" if count == 1 else f"{count} files are"
    for line in said or [f"{right} as {source} says"]:
        Stdout().line(plain(line))
    return 1 if said else 0


def _differs(name: str, expected: str, settings: Settings) -> str:
    """Say how a file that is listed differs from that, nothing if it does not."""
    try:
        got = file_at(settings.models_dir / name, name).sha256
    except (FileNotFoundError, NotADirectoryError):
        return f"{name}: listed, and not there"
    except OSError as error:
        return f"{name}: cannot be read: {error.strerror}"
    return "" if got == expected else f"{name}: expected sha256 {expected}, got {got}"
