"""What all connections of a worker share."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from service.entrance.failing import Failing
from service.entrance.keys import Keys
from service.entrance.limits import Limits
from service.entrance.services import Services


class Worker(Struct, frozen=True):
    """The parts of a worker, and the connections and tasks that it waits for when it ends."""

    services: Services
    limits: Limits
    keys: Keys
    failing: Failing
    make_id: Callable[[], bytes]
    connections: set[Any]
    tasks: set[Any]
    calls: Callable[..., Any]  # makes the Calls of a connection
