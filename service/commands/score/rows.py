"""The rows of the input, in batches that the model can run."""

import os
import stat
from typing import BinaryIO

from service.commands.score.identity import are_batched
from service.commands.score.output import Mark
from service.engine.model import Model
from service.formats.lines import Options, Rows, Tape
from service.formats.registry import Format
from service.settings import Settings


class Source:
    """The rows of the input. `tape` says how much of it was read."""

    def __init__(
        self, file: BinaryIO, format: Format, model: Model, settings: Settings, *, keep: bool
    ) -> None:
        """Read the header, if there is one. Raises InvalidInput for one that does not fit."""
        if format.rows is None:
            raise RuntimeError(f"score has no rows of {format.name}. This is a bug.")
        status = os.fstat(file.fileno())
        self.model = model
        self.batch_size = settings.max_batch_size if are_batched(model, settings) else 1
        self.is_file = stat.S_ISREG(status.st_mode)
        self._start = file.tell() if self.is_file else 0  # others may have read of it before
        self.size = status.st_size - self._start if self.is_file else 0  # bytes
        self._file = file
        self._read = format.rows
        longest, pixels = settings.max_body_bytes, settings.max_image_pixels
        self._options = Options(longest=longest, keep=keep, max_image_pixels=pixels)
        self._begin()

    def _begin(self) -> None:
        self.tape = Tape(self._file, self._start)
        self.rows: Rows = self._read(self.tape, self.model, self._options)

    def pass_to(self, mark: Mark) -> bool:
        """Read up to a mark; if that is not what was read then, read from the beginning again."""
        if not self.is_file:
            return False
        self.tape.pass_to(mark.lines, mark.input_bytes)
        if self.tape.sha256.hexdigest() == mark.input_sha256:
            return True
        self._file.seek(self._start)
        self._begin()
        return False
