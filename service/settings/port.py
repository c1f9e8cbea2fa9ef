"""The port that the settings say."""

import socket

from service.errors import StartupError
from service.settings.settings import Settings


def bind(settings: Settings) -> socket.socket:
    """Take the port before anything is loaded. Raises StartupError when it is in use."""
    is_ipv6 = ":" in settings.host
    host = f"[{settings.host}]" if is_ipv6 else settings.host
    try:
        listener = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        try:
            _listen(listener, settings, is_ipv6=is_ipv6)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise StartupError(
            f"TORCHLIT_HOST, TORCHLIT_PORT: cannot listen on {host}:{settings.port}: "
            f"{error.strerror}"
        ) from error
    return listener


def _listen(listener: socket.socket, settings: Settings, *, is_ipv6: bool) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_ipv6:  # `::` is of both families, whatever the system has by default
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if settings.reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((settings.host, settings.port))
    if not settings.reuse_port:  # who shares the port gets connections from now on
        listener.listen()
    listener.setblocking(False)
