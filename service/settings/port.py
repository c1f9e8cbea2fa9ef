"""The port that the settings say."""

import socket

from service.errors import StartupError
from service.settings.settings import Settings


def bind(settings: Settings) -> socket.socket:
    """Take the port before anything is loaded. Raises StartupError when it is in use."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
        if not settings.reuse_port:  # who shares the port gets connections from now on
            listener.listen()
    except OSError as error:
        listener.close()
        raise StartupError(
            f"TORCHLIT_HOST, TORCHLIT_PORT: cannot listen on {settings.host}:{settings.port}: "
            f"{error.strerror}"
        ) from error
    listener.setblocking(False)
    return listener
