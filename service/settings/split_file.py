"""The weights that hold at first, those of the file that may change them, and whether they can."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.errors import InvalidSetting
from service.settings.settings import Settings
from service.settings.split import Split

VARIABLE = "TORCHLIT_SPLIT_FILE"


def split_of(settings: Settings) -> Split:
    """Return the weights: those of the file, where one is set. Raises InvalidSetting."""
    return settings.split if settings.split_file is None else split_in(settings.split_file)


def split_in(path: Path) -> Split:
    """Return the weights of a file. Raises InvalidSetting; its cause is an OSError if that is."""
    try:
        return Split(path.read_text("utf-8-sig"))
    except OSError as error:
        sentence = f"{VARIABLE}: {path}: cannot be read: {error.strerror}"
        raise InvalidSetting(sentence, VARIABLE) from error
    except UnicodeDecodeError as error:
        sentence = f"{VARIABLE}: {path}: cannot be read: not UTF-8 text"
        raise InvalidSetting(sentence, VARIABLE) from error
    except ValueError as error:
        raise InvalidSetting(f"{VARIABLE}: {path}: {error}", VARIABLE) from error


def not_ready(split: Split, ready: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Yield a sentence for each version that has a weight, and is none of those that are ready."""
    for name in sorted(split.names):
        if name not in ready:
            yield f"{name!r}: expected one of the models {', '.join(ready) or 'none'}"
            continue
        known = ", ".join(map(str, ready[name])) or "none"
        for version, weight in split.of(name).items():
            if weight and version not in ready[name]:
                shown = f"{name}={split.shown(name)}"
                yield f"{shown}: expected versions that are ready ({known}), got {version}"
