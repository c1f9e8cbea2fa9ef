"""What a caller is told of whatever was raised, and what the log is."""

from service.entrance.services import Host
from service.errors import InferenceFailed, MemoryFull, QueueFull, RequestError
from service.inference import Call
from service.logs.failures import Failures


class Failing:
    """Turns what was raised into what is told; called in the event loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.failures = Failures()

    def told(self, error: Exception, call: Call, path: str) -> RequestError:
        """Return what the caller of an inference is told; log what is ours."""
        if isinstance(error, InferenceFailed):
            served = call.served
            where = f"model {served.name} version {served.version}" if served else path
            self.failures.log(f"{where}: {error.reason or error}")
        if isinstance(error, QueueFull | MemoryFull):
            self._host.make_room()
        if isinstance(error, RequestError):
            return error
        self.failures.log_bug(path, error)
        return InferenceFailed("internal error")
