"""What the command line says."""

import re

from msgspec import Struct

from service.errors import CannotScore
from service.settings import machine


class Cluster(Struct, frozen=True):
    """A cluster of Ray."""

    address: str | None = None  # of RAY_ADDRESS if not given, else Ray is started here


class Job(Struct, frozen=True, kw_only=True):
    """What the command line says."""

    model: str
    input: str
    output: str
    format: str | None = None
    workers: str = "1"
    on: str | None = None
    keep: bool = False
    strict: bool = False
    force: bool = False

    @property
    def processes(self) -> int:
        """How many are to answer; 0: as many as a cluster has cores. Raises CannotScore."""
        if self.workers == "auto":
            return 0 if self.on else machine.available().workers
        if re.fullmatch("0*[1-9][0-9]{0,8}", self.workers) is None:
            raise CannotScore(f"--workers: expected a number from 1, or auto, got {self.workers!r}")
        return int(self.workers) if self.on else min(int(self.workers), machine.MOST_WORKERS)

    @property
    def cluster(self) -> Cluster | None:
        """Where they are to be, None for this machine. Raises CannotScore."""
        if self.on is None:
            return None
        name, equals, address = self.on.partition("=")
        if name != "ray" or (equals and not address):
            raise CannotScore(f"--on: expected ray or ray=ADDRESS, got {self.on!r}")
        return Cluster(address or None)
