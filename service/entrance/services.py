"""What the handlers of routes work with."""

from collections.abc import Callable

from msgspec import Struct

from service.catalog.catalog import Catalog
from service.catalog.reload import Reloader
from service.catalog.splitting import Splitting
from service.entrance.memory import Memory
from service.entrance.row_bodies import RowBodies
from service.inference import Inference
from service.metrics import Metrics
from service.settings import Settings


class Host(Struct):
    """What the process that runs the app says of itself."""

    is_draining: bool = False  # told to stop: still serving, no longer ready
    is_replacing: bool = False  # a worker that ended, beside others that serve
    # Whether a request that is answered by ASGI now is the only one.
    is_alone: Callable[[], bool] = lambda: False
    # Ends what may be answered for nobody: too much waits.
    make_room: Callable[[], object] = lambda: None


class Services(Struct, frozen=True):
    """The parts of the service."""

    settings: Settings
    host: Host
    catalog: Catalog
    reloader: Reloader
    splitting: Splitting
    metrics: Metrics
    inference: Inference
    bodies: RowBodies
    memory: Memory

    @property
    def is_ready(self) -> bool:
        """Whether every model that must answer does (Catalog.is_ready), and nobody said to stop."""
        return self.catalog.is_ready and not self.host.is_draining
