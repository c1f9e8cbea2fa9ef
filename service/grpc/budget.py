"""What a client may do beside its calls: a flood of it costs the server more than the client.

Each count is of the frames since the last check of the connections, half a second ago. A client
that goes beyond it is sent away (ENHANCE_YOUR_CALM). What calls themselves may cost is bounded
elsewhere: streams at once, header blocks (by h2), messages, memory.
"""

from h2 import events

RESETS = "streams that were reset"
CONTROL = "frames that say nothing of a call"
WINDOWS = "changes of windows"

MOST = {
    RESETS: 1000,  # CVE-2023-44487
    CONTROL: 2000,  # CVE-2019-9512, 9513, 9515, 9518: pings, priorities, settings, empty data
    WINDOWS: 10_000,  # CVE-2019-9511, 9517; a large reply needs one for some kilobytes
}

_KINDS: dict[type[events.Event], str] = {
    events.StreamReset: RESETS,
    events.PingReceived: CONTROL,
    events.PingAckReceived: CONTROL,
    events.PriorityUpdated: CONTROL,
    events.RemoteSettingsChanged: CONTROL,
    events.SettingsAcknowledged: CONTROL,
    events.UnknownFrameReceived: CONTROL,
    events.TrailersReceived: CONTROL,
    events.InformationalResponseReceived: CONTROL,
    events.WindowUpdated: WINDOWS,
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

    def spend(self, kind: str) -> str:
        """Count one; return what there were too many of, nothing as long as all is well."""
        self._done[kind] += 1
        return kind if self._done[kind] > self._most[kind] else ""

    def spend_of(self, event: events.Event) -> str:
        """Count what an event is, if it is something here; return as `spend` does."""
        kind = _KINDS.get(type(event))
        return "" if kind is None else self.spend(kind)
