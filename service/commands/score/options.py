"""What the command line says."""

from msgspec import Struct

from service.errors import CannotScore
from service.settings import machine


class Job(Struct, frozen=True, kw_only=True):
    """What the command line says."""

    model: str
    input: str
    output: str
    format: str | None = None
    workers: str = "1"
    keep: bool = False
    strict: bool = False
    force: bool = False

    @property
    def processes(self) -> int:
        """How many are to answer. Raises CannotScore."""
        if self.workers == "auto":
            return machine.available().workers
        if not self.workers.isdecimal() or int(self.workers) < 1:
            raise CannotScore(f"--workers: expected a number from 1, or auto, got {self.workers!r}")
        return min(int(self.workers), machine.MOST_WORKERS)
