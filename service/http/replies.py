"""Replies of Litestar's handlers, packed where the caller takes that."""

from typing import Any

from litestar import Request, Response

from service.http import compression

GZIP = "gzip"  # every browser and Prometheus take it
Asked = Request[Any, Any, Any]
Reply = Response[bytes]


def takes_gzip(request: Asked) -> bool:
    """Whether the caller would rather have gzip than the plain content."""
    accept = request.headers.get("accept-encoding", "")
    return compression.wanted(accept.encode("latin-1")) == GZIP


async def packed_if_long(content: bytes, media_type: str, request: Asked) -> Reply:
    """Return what is written anew for each request, packed if it is long and the caller may."""
    headers = {"vary": "accept-encoding"}
    if len(content) >= compression.SHORTEST and takes_gzip(request):
        content = await compression.packed(content, GZIP)
        headers["content-encoding"] = GZIP
    return Response(content, media_type=media_type, headers=headers)
