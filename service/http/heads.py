"""The heads of requests as RFC 9112 wants them read, where uvicorn and its parser do otherwise.

httptools 0.9 takes an offer to go on in another protocol (Upgrade, with Connection: upgrade) for
the end of HTTP: it drops the body, and uvicorn 0.54 answers as if there had been none
(Kludex/uvicorn#2722). Java's HttpClient makes an offer with every request, nginx's usual lines for
websockets with each that they pass on. We take none, so the request is read as one without it.
"""

import re
from abc import ABC, abstractmethod
from math import inf
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import InvalidInput, NotSupported, RequestError
from service.http.arrival import SURELY_SHORT, head_too_large, is_too_long
from service.http.status import Headers
from service.words import shown

_NO_HTTP = "expected an HTTP/1.1 request, got something else"
_NOT_ASCII = re.compile(rb"(?:^|\n)[A-Z]+ [!-~]*[\x80-\xff]")  # in a request line
_HOST = re.compile(rb"(\[[0-9A-Za-z:.]+\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?", re.ASCII)


class Heads(HttpToolsProtocol, ABC):
    """uvicorn's protocol, which passes offers over and refuses what a head may not say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_offer = False  # the head that is parsed; it will be parsed again, without it
        self.head_bytes = 0  # since the last request began, or the last fragment of its body came
        self.url, self.headers = b"", []  # uvicorn's: of the head that came last
        self.body_bytes = 0  # that are here of the request that comes in
        self._length = inf  # of its body in bytes, where that is said
        self._is_head = False  # what is parsed

    @abstractmethod
    def refuse(self, error: RequestError) -> None:
        """Answer in place of the app, and close."""

    def feed(self, data: bytes) -> None:
        """Parse what came; refuse what is no HTTP."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._without_offer() + data[offer.args[0] :]
            except httptools.HttpParserError as error:
                self.refuse(self._reason(error, data))
                return

    def on_message_begin(self) -> None:
        """Begin with a request: its first byte is here."""
        super().on_message_begin()
        self.head_bytes = self.body_bytes = 0
        self._is_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers, behind the body, are no headers (RFC 9110, section 6.5.1)."""
        if self._is_head:
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is not as it has to be."""
        self._is_head = False
        if self.head_bytes > SURELY_SHORT and is_too_long(self.url, self.headers):
            raise head_too_large()
        self.has_offer = self.parser.should_upgrade()
        if not self.has_offer:
            version = self.parser.get_http_version()
            _check(self.headers, version)
            self.url = _path_and_query(self.url)
            self._length = float(dict(self.headers).get(b"content-length", inf))
            self.expect_100_continue &= version != "1.0"  # RFC 9110, section 10.1.1
            super().on_headers_complete()
            if not self.cycle.keep_alive:  # ab takes a time for leave to stay
                said = self.cycle.default_headers
                self.cycle.default_headers = [each for each in said if each[0] != b"keep-alive"]
        elif self.parser.get_method() == b"CONNECT":  # to the parser it is an offer, too
            raise InvalidInput(_NO_HTTP)

    def on_message_complete(self) -> None:
        """Note that the complete request is here."""
        super().on_message_complete()
        self._length = inf

    def rest(self) -> float:
        """Return how many bytes of a body are still to come; infinity if that is not said."""
        return self._length - self.body_bytes

    def _without_offer(self) -> bytes:
        """Return the head that has just been parsed, without the offer in it.

        Another parser takes it: the one that met the offer may take no more.
        """
        self.has_offer = False
        version = self.parser.get_http_version().encode()
        method = self.parser.get_method()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, version)]
        lines += [b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade"]
        return b"".join([*lines, b"\r\n"])

    def _reason(self, error: httptools.HttpParserError, data: bytes) -> RequestError:
        """Return why the parser stopped in `data`, for the caller."""
        if isinstance(error.__context__, RequestError):  # raised above
            return error.__context__
        if is_too_long(self.url, self.headers):
            return head_too_large()
        if isinstance(error, httptools.HttpParserInvalidURLError) and _NOT_ASCII.search(data):
            return InvalidInput(
                "path: expected ASCII, and other characters as %XX of their UTF-8 (RFC 3986, "
                "section 2.5), got one as it is"
            )
        return InvalidInput(_NO_HTTP)


def _check(headers: Headers, version: str) -> None:
    """Raise InvalidInput or NotSupported for a head that RFC 9112 forbids, or we cannot serve."""
    if version not in ("1.0", "1.1"):
        raise InvalidInput(_NO_HTTP)
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version == "1.1"):  # section 3.2
        raise InvalidInput(f"Host: expected one such header, got {len(hosts) or 'none'}")
    if hosts and not _HOST.fullmatch(hosts[0]):
        got = shown(hosts[0].decode("latin-1"))
        raise InvalidInput(f"Host: expected a name or an address, and a port, got {got}")
    codings = b",".join(value for name, value in headers if name == b"transfer-encoding")
    *others, last = (each.strip().lower() for each in codings.split(b","))
    # Section 6.1. What has not chunked at the end, or twice, the parser refuses.
    if others and last == b"chunked" and last not in others:
        got = shown(codings.decode("latin-1"))
        raise NotSupported(f"Transfer-Encoding: expected chunked alone, got {got}")


def _path_and_query(target: bytes) -> bytes:
    """Return path and query of a target; "/" where it names a host alone (section 3.2.2)."""
    if target.startswith(b"/") or b"://" not in target:
        return target
    parsed = httptools.parse_url(target)
    path = parsed.path or b"/"
    return path if parsed.query is None else b"%b?%b" % (path, parsed.query)
