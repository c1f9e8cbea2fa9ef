"""Log lines, and the id of the request that they belong to.

lines        how a line looks
stderr       where it is written, without holding anybody up
failures     why requests fail, once a second
request_id   the id of the request that is being answered
"""

from service.logs.lines import access, configure

__all__ = ["access", "configure"]
