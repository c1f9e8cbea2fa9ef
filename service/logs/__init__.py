"""Log lines, and the id of the request that they belong to.

lines        how a line looks
stderr       where it is written, without holding anybody up
failures     why requests fail, once a second
request_id   the id of the request that is being answered
"""

from service.logs.lines import access, access_grpc, configure

__all__ = ["access", "access_grpc", "configure"]
