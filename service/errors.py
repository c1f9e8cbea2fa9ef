"""Every error the service raises on purpose, as a tree.

    ServiceError
      StartupError              the process cannot start; printed as one line, exit status 1
        InvalidSetting          a TORCHLIT_ variable is unknown or does not fit
      ModelError                a model file cannot be served; the other models are
        InvalidCard             its card is not readable or contradicts itself
        SelfTestFailed          it does not answer its own examples as PyTorch did
      RequestError              answered to the caller, with the status of the class
        InvalidInput       400  the body or an instance does not fit
        Unauthorized       401  no API key, or one that is not known
        NotFound           404  no such model, version or path
        MethodNotAllowed   405  the path exists, the method does not
        RequestTimeout     408  the request did not arrive in time
        TooLarge           413  body or number of rows over the limit
          HeadTooLarge     431  request line and headers over the limit
        UnsupportedMediaType 415  the body is of a kind that is not known there
        NotSupported       501  part of a protocol that is not served here
          UnsupportedEncoding 501  the body is packed in a way that is not known
        InferenceFailed    500  the model raised, or answered NaN or infinity
        Unavailable        503  starting, draining or failed; try again later
          QueueFull        503  more rows wait than the limit allows
          TooManyConnections 503  more are open than the limit allows
        DeadlineExceeded   504  the answer would have come too late

The message is one sentence: what, expected, got, where. It is written for the caller, so it
holds nothing internal.
"""

from typing import TypeAlias

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class ServiceError(Exception):
    """Base of the tree above."""


class StartupError(ServiceError):
    """The process cannot start."""


class InvalidSetting(StartupError):
    """A TORCHLIT_ variable is unknown, or its value does not fit: `variable`, if it is one."""

    def __init__(self, sentence: str, variable: str = "") -> None:
        super().__init__(sentence)
        self.variable = variable


class ModelError(ServiceError):
    """A model file cannot be served."""


class InvalidCard(ModelError):
    """The card in a model file is not readable or contradicts itself."""


class SelfTestFailed(ModelError):
    """The model does not answer its own examples as PyTorch did."""


class RequestError(ServiceError):
    """A request is refused.

    `status` is the HTTP status, `outcome` the metrics label, `headers` go into the reply.
    """

    status = 500
    outcome = "failed"
    headers: Headers = ()


class InvalidInput(RequestError):
    """The body or an instance does not fit the model."""

    status = 400
    outcome = "invalid"


class Unauthorized(RequestError):
    """An API key is needed, and none that is known was given."""

    status = 401
    outcome = "unauthorized"
    headers = ((b"www-authenticate", b"Bearer"),)


class NotFound(RequestError):
    """No such model, version or path."""

    status = 404
    outcome = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status = 405
    outcome = "invalid"
    headers = ((b"allow", b"POST"),)


class RequestTimeout(RequestError):
    """The request did not arrive in time; the connection is closed."""

    status = 408
    outcome = "timeout"


class TooLarge(RequestError):
    """The body, or the number of rows, is over the limit."""

    status = 413
    outcome = "too_large"


class HeadTooLarge(TooLarge):
    """The request line and the headers are over the limit; the connection is closed."""

    status = 431


class UnsupportedMediaType(RequestError):
    """The body is of a kind that is not known there."""

    status = 415
    outcome = "invalid"


class NotSupported(RequestError):
    """The protocol knows it; this service, or its settings, do not serve it."""

    status = 501
    outcome = "invalid"


class UnsupportedEncoding(NotSupported):
    """The body is packed in a way that is not known. The status is Triton's; HTTP would say 415."""

    headers = ((b"accept-encoding", b"gzip, deflate"),)


class InferenceFailed(RequestError):
    """The model raised, or answered NaN or infinity."""


class Unavailable(RequestError):
    """The model cannot answer now; a later try may succeed."""

    status = 503
    outcome = "unavailable"
    headers: Headers = ((b"retry-after", b"1"),)


class QueueFull(Unavailable):
    """More rows wait than TORCHLIT_MAX_QUEUE_ROWS allows."""

    outcome = "queue_full"


class TooManyConnections(Unavailable):
    """More connections are open than TORCHLIT_MAX_CONNECTIONS allows."""

    outcome = "too_many_connections"
    headers = (*Unavailable.headers, (b"connection", b"close"))


class DeadlineExceeded(RequestError):
    """The answer would have come after the request's deadline."""

    status = 504
    outcome = "deadline"
