"""`python -m service health`: ask the service of this machine whether it is ready.

For the health check of a container, whose image has no curl. It imports little, as it is run
every few seconds.
"""

import http.client
import ipaddress

from service.access import keys
from service.errors import ServiceError
from service.settings import Settings

TIMEOUT_S = 5
READY = "/health/ready"


class NotReady(ServiceError):
    """The service does not answer, or says that it is not ready."""


def check(settings: Settings) -> None:
    """Ask the service that has these settings. Raises NotReady, and InvalidSetting for bad keys."""
    host = settings.host
    if _is_any(host):
        host = "::1" if ":" in host else "127.0.0.1"
    headers = {}
    if settings.protect_health and settings.has_api_keys:
        headers["Authorization"] = f"Bearer {keys(settings)[0]}"
    connection = http.client.HTTPConnection(host, settings.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", READY, headers=headers)
        reply = connection.getresponse()
        body = reply.read(2_000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"{host}:{settings.port}: no answer: {str(error).strip()}") from error
    finally:
        connection.close()
    if reply.status != 200:
        raise NotReady(f"{host}:{settings.port}: {READY} says {reply.status}: {body}")


def _is_any(host: str) -> bool:
    """Whether a service that listens there listens on all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
