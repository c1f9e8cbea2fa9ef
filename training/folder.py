"""The folder that a training writes into: whether it can."""

import tempfile
from pathlib import Path

from service import checksums
from service.errors import InvalidPins
from training.errors import NotSaved


def check_can_save(folder: Path) -> None:
    """Raise NotSaved unless the files of a version can be put into `folder`.

    To be asked before a training, which takes long. No folder is made: a service would look for
    versions in that of a model. The list of digests must be one that can be added to.
    """
    models_dir = folder.parent.parent
    sums = models_dir / checksums.FILE_NAME
    try:
        if sums.is_file():
            checksums.parsed(sums.read_bytes(), str(sums))
        there = next(each for each in (models_dir, *models_dir.parents) if each.exists())
        for each in (there, folder.parent, folder):
            if each.exists():
                tempfile.TemporaryFile(dir=each).close()
    except InvalidPins as error:
        raise NotSaved(str(error)) from error
    except OSError as error:
        raise NotSaved(f"{folder}: cannot be written: {error.strerror}") from error
