"""Log lines, and the id of the request that they belong to."""

from service.logs.lines import access, configure

__all__ = ["access", "configure"]
