"""Every error the service raises on purpose, as a tree of kinds.

    ServiceError
      StartupError              the process cannot start; printed as one line, exit status 1
        InvalidSetting          a TORCHLIT_ variable is unknown or does not fit
        InvalidPins             the file of digests is missing, not readable, or no such file
      ModelError                a model file cannot be served; the other models are
        NotApproved             a file of it differs from its pin, or has none where it must
        InvalidCard             its card is not readable or contradicts itself
        SelfTestFailed          it does not answer its own examples as its card says
        OutOfResources          memory, files or threads are short; it is opened again later
      CommandError              a command cannot do what it is told to; exit status 1
        NotReady                the service does not answer, or says that it is not ready
        NotWritten              the result cannot be written, or may not be
        CannotInspect           there is no such file, or it is no model
        CannotScore             a file cannot be scored, or not to its end
        CannotDescribe          a card cannot be written for a model
        CannotPin               a file cannot be approved, or differs from its pin
      RequestError              answered to the caller
        InvalidInput            the body or an instance does not fit
          UnknownValue          a value is none of those that the model knows
          UnknownField          the body has a field that is not known there
        Unauthorized            no API key, or one that is not known
        NotFound                no such model, version or path
        MethodNotAllowed        the path exists, the method does not
        RequestTimeout          the request did not arrive in time
        TooLarge                body or number of rows over the limit
          HeadTooLarge          request line and headers over the limit
        UnsupportedMediaType    the body is of a kind that is not known there
          UnsupportedEncoding   the body is compressed in a way that is not known
        NotSupported            part of a protocol that is not served here
        InferenceFailed         the model raised, or answered NaN or infinity
        Unavailable             starting, draining or failed; try again later
          QueueFull             more rows wait than the limit allows
          MemoryFull            more bytes are held than the limit allows
          TooManyConnections    more are open than the limit allows
        DeadlineExceeded        the answer would have come too late

The message is one sentence: what, expected, got, where. It is written for the caller, so it
holds nothing internal. What a protocol answers stands beside the protocol (http/status.py).
"""


class ServiceError(Exception):
    """Base of the tree above."""


class StartupError(ServiceError):
    """The process cannot start."""


class InvalidSetting(StartupError):
    """A TORCHLIT_ variable is unknown, or its value does not fit: `variable`, if it is one."""

    def __init__(self, sentence: str, variable: str = "") -> None:
        super().__init__(sentence)
        self.variable = variable


class InvalidPins(StartupError):
    """The file with the digests of approved files cannot be read, or has a line that is none."""


class ModelError(ServiceError):
    """A model file cannot be served."""


class NotApproved(ModelError):
    """A file of a model has another digest than its pin, or no pin where it must have one."""


class InvalidCard(ModelError):
    """The card in a model file is not readable or contradicts itself."""


class SelfTestFailed(ModelError):
    """The model does not answer its own examples as its card says."""


class OutOfResources(ModelError):
    """Memory, files or threads are short, or a disk fails: the same file may open later."""


class CommandError(ServiceError):
    """A command cannot do what it is told to."""


class NotReady(CommandError):
    """The service does not answer, or says that it is not ready."""


class NotWritten(CommandError):
    """The result cannot be written, or may not be."""


class CannotInspect(CommandError):
    """There is no such file, or it is no model."""


class CannotScore(CommandError):
    """The file cannot be scored, or not to its end."""


class CannotDescribe(CommandError):
    """A card cannot be written for a model."""


class CannotPin(CommandError):
    """A file of a model cannot be approved, or is not as it was approved."""


class RequestError(ServiceError):
    """A request is refused. `outcome` is the label under which it is counted."""

    outcome = "failed"


class InvalidInput(RequestError):
    """The body or an instance does not fit the model."""

    outcome = "invalid"


class UnknownValue(InvalidInput):
    """A value is none of those that the model knows, as a text that was not in its training."""


class UnknownField(InvalidInput):
    """The body has a field that is not known there: `field`."""

    def __init__(self, sentence: str, field: str = "") -> None:
        super().__init__(sentence)
        self.field = field


class Unauthorized(RequestError):
    """An API key is needed, and none that is known was given."""

    outcome = "unauthorized"


class NotFound(RequestError):
    """No such model, version or path."""

    outcome = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    outcome = "invalid"


class RequestTimeout(RequestError):
    """The request did not arrive in time; the connection is closed."""

    outcome = "timeout"


class TooLarge(RequestError):
    """The body, or the number of rows, is over the limit."""

    outcome = "too_large"


class HeadTooLarge(TooLarge):
    """The request line and the headers are over the limit; the connection is closed."""


class UnsupportedMediaType(RequestError):
    """The body is of a kind that is not known there."""

    outcome = "invalid"


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is compressed in a way that is not known."""


class NotSupported(RequestError):
    """The protocol knows it; this service, or its settings, do not serve it."""

    outcome = "invalid"


class InferenceFailed(RequestError):
    """The model raised, or answered NaN or infinity.

    `reason` is for the log, where it says more than the sentence; it holds no values of a body.
    """

    def __init__(self, sentence: str, reason: str = "") -> None:
        super().__init__(sentence)
        self.reason = reason


class Unavailable(RequestError):
    """The model cannot answer now; a later try may succeed."""

    outcome = "unavailable"


class QueueFull(Unavailable):
    """More rows wait than TORCHLIT_MAX_QUEUE_ROWS allows."""

    outcome = "queue_full"


class MemoryFull(Unavailable):
    """More bytes are held than TORCHLIT_MAX_HELD_BYTES allows."""

    outcome = "memory_full"


class TooManyConnections(Unavailable):
    """More connections are open than TORCHLIT_MAX_CONNECTIONS allows."""

    outcome = "too_many_connections"


class DeadlineExceeded(RequestError):
    """The answer would have come after the request's deadline."""

    outcome = "deadline"
