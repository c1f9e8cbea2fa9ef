"""What a client may do beside its calls: a flood of it costs the server more than the client.

Each count is of the frames since the last check of the connections, half a second ago. A client
that goes beyond it is sent away (ENHANCE_YOUR_CALM). Who is answered much may do more: grpcio
changes two windows for each call. What calls themselves may cost is bounded elsewhere: streams at
once, header blocks (blocks.py), settings in a frame (shortcuts.py), messages, memory.
"""

from h2 import events

from service.grpc.shortcuts import SaidNothing

RESETS = "streams that were reset"
CONTROL = "frames that say nothing of a call"
WINDOWS = "changes of windows"
ENDED = "frames of streams that ended"

MOST = {
    RESETS: 1000,  # CVE-2023-44487
    CONTROL: 2000,  # CVE-2019-9512, 9513, 9515, 9518: pings, priorities, settings, empty data
    WINDOWS: 10_000,  # CVE-2019-9511, 9517
    ENDED: 10_000,
}
# What an answer, and each of its large frames, lets the client do beside these.
EARNED = {WINDOWS: 4, ENDED: 4, CONTROL: 1}
LARGE_FRAME = 4096  # bytes: a client that opens its windows by less earns nothing by it

KINDS: dict[type[events.Event], str] = {
    events.StreamReset: RESETS,
    events.PingReceived: CONTROL,
    events.PingAckReceived: CONTROL,
    events.PriorityUpdated: CONTROL,
    events.RemoteSettingsChanged: CONTROL,
    events.SettingsAcknowledged: CONTROL,
    events.UnknownFrameReceived: CONTROL,
    events.TrailersReceived: CONTROL,
    events.InformationalResponseReceived: CONTROL,
    events.ConnectionTerminated: CONTROL,
    events.WindowUpdated: WINDOWS,
    SaidNothing: ENDED,
}


class Budget:
    """Counts what a client does."""

    def __init__(self, most: dict[str, int] | None = None) -> None:
        self._most = MOST if most is None else most
        self._done = dict.fromkeys(self._most, 0)

    def renew(self) -> None:
        """Begin anew; called at each check."""
        for kind in self._done:
            self._done[kind] = 0

    def earn(self) -> None:
        """Note that the client was answered, or got a large frame of an answer."""
        for kind, number in EARNED.items():
            self._done[kind] -= number

    def spend(self, kind: str) -> str:
        """Count one; return what there were too many of, nothing as long as all is well."""
        self._done[kind] += 1
        return kind if self._done[kind] > self._most[kind] else ""
