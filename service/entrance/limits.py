"""What the connections of a worker may do: how many there may be, and how long each may take.

An open connection holds a place. When all are held, one that is idle gives its place to a new
one. If none is idle, the new one gets an answer and is closed: a probe its own, everybody else
that all is full.
"""

from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import Protocol

from service.entrance.memory import Memory
from service.settings import Settings

CHECK_EVERY_S = 0.5
LATE_S = 1.0  # after the last check, another says nothing of the clients
IDLE_S = 1.0  # a connection is silent for so long before it may have to give its place
FOR_PROBES = 64  # connections without a place; for one more, the oldest that asks nothing ends


class Connection(Protocol):
    """One that is limited."""

    def idle_since(self) -> float:
        """Return since when nobody waits for anything here; infinity if somebody does."""

    def is_answering(self) -> bool:
        """Whether a request that came completely waits for its answer."""

    def cut_off_if_slow(self) -> None:
        """Close it if its client takes too long."""

    def give_way(self) -> None:
        """End immediately, for another."""

    def let_go(self) -> None:
        """End immediately, as its client may have left."""


class Limits:
    """The limits of a worker's connections, and who checks whether they are kept."""

    def __init__(
        self,
        settings: Settings,
        memory: Memory,
        when_full: Callable[..., Awaitable[None]],
        count: Callable[[str], None],
        now: float,
    ) -> None:
        """`when_full` answers on connections without a place; `count` takes an outcome."""
        self.timeout_s = settings.receive_timeout_s
        self.keep_alive_s = settings.keep_alive_s
        self.max_connections = settings.max_connections
        self.max_body_bytes = settings.max_body_bytes
        self.memory = memory
        self.when_full = when_full
        self.count = count
        # The time at the last check: near enough, and free to read. It stands still while the
        # process is stopped, as all the clients then wait for it.
        self.now = now
        self._checked_at = now  # by the event loop's clock
        self._placed: set[Connection] = set()
        self._extra: dict[Connection, None] = {}  # those without a place, the oldest first
        self._idle: list[Connection] = []  # those found at the last search, the longest idle last
        self._searched_at = -inf
        self.half_closed: set[Connection] = set()  # whose clients send no more, and may have left

    def is_over(self, since: float, seconds: float) -> bool:
        """Whether more than `seconds` have passed since then, which was up to a check later."""
        return self.now - since > seconds + CHECK_EVERY_S

    def check(self, connections: Iterable[Connection], now: float) -> None:
        """Cut off those that are too slow; called every CHECK_EVERY_S, at the event loop's `now`.

        If that is late, the process was stopped or busy: what came meanwhile is read first.
        """
        passed, self._checked_at = now - self._checked_at, now
        self._idle.clear()
        if passed > LATE_S:
            self.now += CHECK_EVERY_S
            return
        self.now += passed
        for connection in list(connections):
            connection.cut_off_if_slow()

    def enter(self, connection: Connection) -> bool:
        """Let a new connection in; whether it has a place."""
        if self.place(connection):
            return True
        if len(self._extra) == FOR_PROBES:
            oldest = next(iter(self._extra))
            silent = next((each for each in self._extra if not each.is_answering()), oldest)
            self.leave(silent)
            silent.give_way()
        self._extra[connection] = None
        return False

    def place(self, connection: Connection) -> bool:
        """Give a connection a place, if need be that of an idle one; whether there was one."""
        if len(self._placed) >= self.max_connections and not self._end_longest_idle():
            return False
        self._extra.pop(connection, None)
        self._placed.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection that ends."""
        self._placed.discard(connection)
        self.half_closed.discard(connection)
        self._extra.pop(connection, None)

    def make_room(self) -> None:
        """Let those go whose clients may have left: what waits for them keeps others out."""
        for connection in list(self.half_closed):
            connection.let_go()

    def _end_longest_idle(self) -> bool:
        """End the connection that is idle for longest; whether one was idle.

        They are searched once between two checks: new connections may come by the thousand.
        """
        if self._searched_at != self.now:
            self._searched_at = self.now
            self._idle = sorted(
                (each for each in self._placed if self._is_idle(each)),
                key=lambda each: each.idle_since(),
                reverse=True,
            )
        while self._idle:
            connection = self._idle.pop()
            if connection in self._placed and self._is_idle(connection):
                self.leave(connection)
                connection.give_way()
                return True
        return False

    def _is_idle(self, connection: Connection) -> bool:
        return self.is_over(connection.idle_since(), IDLE_S)
