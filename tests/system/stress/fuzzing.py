"""Requests that nobody would send: valid ones of every committed model, changed at random.

The same seed gives the same requests. A request that is *framed* is one HTTP request whatever
its values are: the service must answer it with exactly one reply, and the connection can be
used again if that reply does not say otherwise. Of the others it may make what it likes.
"""

import json
import zlib
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tests.system.stress.load import COMMITTED_MODELS

EXAMPLES = "*/*/request.json"
HUGE = 200_000  # bytes, of what is meant to be too much

# JSON that is no value of Python's; each is put where the mark stands.
RAW = (
    *("NaN", "-Infinity", "Infinity", "nan", "1e400", "-1e400", "1e-400", "-0", "-0.0", "00", "01"),
    *("1.", ".5", "+1", "0x10", "1e", "1_000", "1e5000", "5e-324", "3.4028235e38", "3.5e38"),
    *("9" * 300, "9" * 5000, "0." + "3" * 400, "1" + "0" * 20, "-9223372036854775809"),
    *('"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\x"', '"\\', "'a'", '"\t"', '"\n"'),
    *("[" * 500 + "]" * 500, "[" * 20_000 + "]" * 20_000, '{"a":' * 3000 + "1" + "}" * 3000),
    *("", ",", ":", "]", "}", "[", "{", "//", "/* */", "undefined", "True", "None", "tru", "nul"),
)
MARK = "\0mark\0"
BROKEN_TEXT = (
    *(b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\x00\x00\xfe\xff", b"\x1b[31m", b"\xe2\x80\xae"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.1, 1e308, -1e39),
    *("", "5", "NaN", "iris", "é", "\u202e", "\U0001f600", "x" * 50, "x" * 5000, "\x00", "../.."),
    *([], [[]], [None], [1, "a"], {}, {"": 1}, {"a": {"b": {}}}, [[[[[[1]]]]]], [1] * 1000),
    *("FP32", "FP64", "FP16", "BF16", "INT8", "UINT64", "BOOL", "BYTES", "input", "probabilities"),
    *([1, 4], [0, 4], [-1, 4], [2**31, 2**33], [1] * 70, {"name": "value"}, {"name": "input"}),
    *({"binary_data_size": 16}, {"binary_data": True}, {"classification": 2}, {"timeout": 1}),
)
NAMES = (
    *("model", "version", "instances", "Model", "instance", "inputs", "x", "", "__proto__", "é"),
    *("sepal_length", "sepal_lenght", "crim", "y", "\ud800", "a" * 300),
    *("id", "outputs", "parameters", "name", "shape", "datatype", "data", "binary_data_size"),
    *("binary_data", "binary_data_output", "classification", "sequence_id", "timeout", "priority"),
    *("shared_memory_region", "triton_x"),
)
METHODS = (
    *("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "LOCK"),
    *("M-SEARCH", "REPORT", "SEARCH", "PURGE", "LINK", "SUBSCRIBE"),
)
STRANGE_METHODS = (
    *("CONNECT", "PRI", "post", "Post", "POST ", "", "GARBAGE", "P\x00ST", "P\xd6ST", "G" * 5000),
    *("QUERY", "SOURCE", "DESCRIBE", "\x16\x03\x01", "HTTP/1.1 200 OK\r\n"),
)
ROUTES = (
    *("/models", "/models/iris", "/models/mnist", "/health/live", "/health/ready", "/metrics"),
    *("/schema/openapi.json", "/models/iris/1/loss.png", "/models/mnist/2/confusion.png"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/iris"),
    *("/v2/models/iris/ready", "/v2/models/mnist/versions/1/ready", "/v2/models/housing/config"),
    *("/v2/models/stats", "/v2/models/iris/stats", "/v2/models/iris/versions/1/stats"),
    *("/v2/models/iris/infer", "/v2/models/mnist/versions/2/infer", "/v2/repository/index"),
    *("/v2/repository/models/xor/load", "/v2/repository/models/xor/unload"),
)
PATHS = (
    *("/", "//", "/predict/", "/predict//", "/predict/iris/", "/predict/none", "/predictx"),
    *("/predict/iris/1", "/predict?model=iris", "/predict/%69ris", "/predict/iris%00", "/%"),
    *("/predict/%ff%fe", "/predict/%2e%2e/%2e%2e/etc/passwd", "/predict/../models", "/%zz"),
    *("/predict/%F0%9F%98%80", "/predict/%ED%A0%80", "/predict/%0d%0aX-Evil:%201", "/models/"),
    *("/models/%00", "/models/%ff", "/models/..%2f..%2fetc", "/models/iris/1/..%2fmodel.onnx"),
    *("/models/iris/0/loss.png", "/models/iris/-1/loss.png", "/models/iris/1/model.onnx"),
    *("/models/iris/99999999999999999999/loss.png", "/models/iris/1e3/loss.png", "/models/{}/x"),
    *("/models/iris/1/loss.png%00", "/models/iris/%31/loss.png", "/models/é", "/schema", "/docs"),
    *("/schema/openapi.yaml", "/favicon.ico", "/health", "/health/live/", "/health//live", "/?"),
    *("/metrics?x=%ff&y=%00", "/models?" + "a" * 3000, "/" + "a" * 8000, "/" + "a/" * 2000),
    *("/predict;x=1", "/predict#x", "http://x/predict", "http://x:80/models", "http://x"),
    *("https://user:pass@x/predict/iris", "http://[::1]/predict", "/\\", "/predict\\iris", "/~"),
    *("/v2/", "/v2//", "/v2x", "/v3", "/v2/health", "/v2/models/", "/v2/models/none", "/V2/models"),
    *("/v2/models//infer", "/v2/models/none/infer", "/v2/models/iris/infer/", "/v2/models/infer"),
    *("/v2/models/iris/infer?x=%ff", "/v2/models/%69ris/infer", "/v2/models/%ff/infer"),
    *("/v2/models/iris/versions/0/infer", "/v2/models/iris/versions/-1", "/v2/models/\u00e9/infer"),
    *("/v2/models/iris/versions//infer", "/v2/models/iris/versions/\u0661/config"),
    *("/v2/models/iris/versions/99999999999999999999/infer", "/v2/models/iris/versions/1e3/ready"),
    *("/v2/models/iris%2finfer", "/v2/models/../models/iris", "/v2/models/iris/generate"),
    *("/v2/repository", "/v2/repository/models/none/load", "/v2/repository/models/%00/unload"),
    *(
        "/v2/systemsharedmemory/status",
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/models/" + "a" * 999,
    ),
)
STRANGE_PATHS = (
    *("*", "", "predict", "x:80", "http://", "http://[", "://", "/a b", "/\x00", "/\xff\xfe"),
    *("/\x7f", "\\", "?", "#", "/a\tb", "http://x:99999999/", "/" + "a" * HUGE, "/%" * 40_000),
)
VERSIONS = ("1.0", "1.1", "0.9", "2.0", "9.9", "1.10", "", "11", "1,1", "\xff")
# Each may come with any of the values below.
HEADERS = (
    *("X-Request-Timeout-Ms", "traceparent", "tracestate", "X-Request-Id", "Authorization"),
    *("X-API-Key", "Content-Type", "Content-Encoding", "Accept", "Accept-Encoding", "Origin"),
    *("Access-Control-Request-Method", "Access-Control-Request-Headers", "If-None-Match"),
    *("If-Modified-Since", "Range", "Cookie", "User-Agent", "X-Forwarded-For", "Forwarded", "Host"),
    *(
        "Inference-Header-Content-Length",
        "Referer",
        "Via",
        "TE",
        "Trailer",
        "X-HTTP-Method-Override",
        "baggage",
        "Priority",
        "x",
    ),
)
HEADER_VALUES = (
    *("", "0", "1", "5000", "-1", "1e3", "1.5", "NaN", "inf", "0x10", " 7", "9" * 30, "9" * 5000),
    *("1,2", "1;2", "١٢", "\xb2", "\x80\xff", "é", "a\tb", '"', "\\", "%00", "%0d%0a", "*", "none"),
    *("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"),
    *("ff-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "A" * 32 + "-" + "B" * 16 + "-01-x"),
    *("00-" + "a" * 31, "-", "---", "Bearer", "Bearer ", "Bearer \xff", "Basic Og==", "bearer  x"),
    *("application/json", "text/plain", "multipart/form-data", "application/json; charset=\xff"),
    *("gzip", "deflate", "gzip, deflate", "x-gzip", "gzip;q=9", "gzip;q=0.5, *;q=0", "identity"),
    *("br, gzip;q=0", "identity;q=0", "bytes=0-", "bytes=99-1", 'W/"x", "', "null"),
    *("http://evil.example", "POST", "a" * 200, "a" * 20_000, "{}", "${jndi:ldap://x}", "<script>"),
)
# Those that tell where a request ends, or what becomes of the connection.
FRAMES = (
    *("Content-Length: 0", "Content-Length: 1", "Content-Length: 99999999", "Content-Length: -1"),
    *("Content-Length: +5", "Content-Length: 5, 5", "Content-Length: 0x5", "Content-Length:"),
    *("Content-Length: " + "9" * 30, "Content-Length: \xb2", "Content-Length: 1e3"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, x"),
    *("Transfer-Encoding: \x0bchunked", "Transfer-Encoding : chunked", "Transfer-Encoding:"),
    *("Connection: close", "Connection: upgrade", "Connection: \xff", "Connection: keep-alive, x"),
    *("Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade, HTTP2-Settings"),
    *("Expect: 100-continue", "Expect: 200-ok", "Expect: \xff", "Keep-Alive: timeout=0"),
    *("Content-Length: 5\r\nContent-Length: 6", "X: a\r\n b", " X: folded", "no colon", ": empty"),
    *("X\x00: nul", "X: n\x00l", "X\xff: 1", "X y: 1", "X: a\rb", "X: a\nb", "X: \x1b[31m"),
    *("X" * 70_000 + ": 1", "X: " + "a" * 70_000, "X: 1\r\n" * 3000 + "Y: 1", "\r\n"),
)


class Fuzzed(Struct, frozen=True):
    """The bytes of a request, and whether they are one HTTP request for sure."""

    sent: bytes
    is_framed: bool
    method: str = "POST"


class Fuzzer:
    """Makes requests."""

    def __init__(self, seed: int, api_key: str = "") -> None:
        """Most requests will have the key, if there is one."""
        self._random = Random(seed)
        self._api_key = api_key
        self._examples = [path.read_bytes() for path in sorted(COMMITTED_MODELS.glob(EXAMPLES))]
        self._models = sorted({path.parent.parent.name for path in COMMITTED_MODELS.glob(EXAMPLES)})
        self._tensors = [tensor_of(example) for example in self._examples]
        assert self._models

    def next(self) -> Fuzzed:
        """Return the next request."""
        makers = (self._of_body, self._of_infer, self._of_headers, self._of_route, self._unframed)
        (make,) = self._random.choices(makers, weights=(30, 25, 20, 15, 10))
        return make()

    def _one_in(self, number: int) -> bool:
        return self._random.randrange(number) == 0

    # Framed requests

    def _of_body(self) -> Fuzzed:
        """A request to a model whose body is changed."""
        content = self._example()
        if self._one_in(2):
            content = self._changed_document(json.loads(content))
        if self._one_in(2):
            content = self._changed_bytes(content)
        return Fuzzed(self._request(content), True)

    def _of_infer(self) -> Fuzzed:
        """A request of the Open Inference Protocol, with JSON or binary data, that is changed."""
        model, rows = self._random.choice(self._tensors)
        tensor: dict[str, Any] = {"name": "input", "shape": list(rows.shape), "datatype": "FP32"}
        document: dict[str, Any] = {"inputs": [tensor]}
        binary, headers = b"", []
        if self._one_in(2):
            binary = rows.tobytes()
            tensor["parameters"] = {"binary_data_size": len(binary)}
        else:
            tensor["data"] = rows.tolist()
        if self._one_in(2):
            document["parameters"] = {"binary_data_output": True}
        head = json.dumps(document).encode()
        if self._one_in(2):
            head = self._changed_document(document)
        content = head + binary
        if binary:
            length: object = len(head)
            if self._one_in(4):
                length = self._random.choice((0, len(content), len(head) - 1, *HEADER_VALUES))
            headers.append(f"Inference-Header-Content-Length: {length}")
        if self._one_in(2):
            content = self._changed_bytes(content)
        if self._one_in(4):
            content = zlib.compress(content, wbits=self._random.choice((15, 31, -15)))
            content = self._changed_bytes(content) if self._one_in(3) else content
            headers.append(f"Content-Encoding: {self._random.choice(('gzip', 'deflate', 'br'))}")
        if self._one_in(4):
            headers.append(f"Accept-Encoding: {self._random.choice(HEADER_VALUES)}")
        version = "/versions/1" if self._one_in(3) else ""
        path = f"/v2/models/{model}{version}/infer"
        return Fuzzed(self._request(content, headers=headers, path=path), True)

    def _of_headers(self) -> Fuzzed:
        """A request to a model, with headers of which some come twice; or a preflight."""
        names = self._random.choices(HEADERS, k=self._random.randrange(1, 6))
        lines = [f"{name}: {self._random.choice(HEADER_VALUES)}" for name in names]
        if self._one_in(4):
            lines.append(self._random.choice(lines))
        method = "OPTIONS" if self._one_in(10) else "POST"
        return Fuzzed(self._request(self._example(), headers=lines, method=method), True)

    def _of_route(self) -> Fuzzed:
        """A request to any path, by any method that HTTP parsers know."""
        method = self._random.choice(("GET", "POST", *METHODS))
        path = self._random.choice(ROUTES if self._one_in(2) else PATHS)
        content = self._example() if self._one_in(3) else b""
        version = "1.0" if self._one_in(10) else "1.1"
        request = self._request(content, method=method, path=path, version=version)
        return Fuzzed(request, True, method)

    def _example(self) -> bytes:
        return self._random.choice(self._examples)

    def _request(
        self,
        content: bytes,
        *,
        headers: list[str] | None = None,
        method: str = "POST",
        path: str | None = None,
        version: str = "1.1",
    ) -> bytes:
        """Return a request whose length is told, or that comes in chunks."""
        if path is None:
            path = "/predict"
            if self._one_in(3):
                path += "/" + self._random.choice(self._models)
        lines = [f"{method} {path} HTTP/{version}", *(headers or [])]
        if not any(line.startswith("Host:") for line in lines):
            lines.append("Host: x")
        if self._api_key and not self._one_in(10):
            lines.append(f"X-API-Key: {self._api_key}")
        if version == "1.1" and self._one_in(4):
            lines.append("Transfer-Encoding: chunked")
            content = self._in_chunks(content)
        else:
            lines.append(f"Content-Length: {len(content)}")
        return b"\r\n".join([*map(as_sent, lines), b"", content])

    def _in_chunks(self, content: bytes) -> bytes:
        chunks = []
        while content:
            size = self._random.randint(1, max(1, len(content)))
            extension = self._random.choice(("", "", ";x=1", ';x="a"'))
            chunks.append(b"%x%b\r\n%b\r\n" % (size, extension.encode(), content[:size]))
            content = content[size:]
        trailer = b"X-Request-Id: late\r\n" if self._one_in(5) else b""
        return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"

    # Bodies

    def _changed_document(self, document: Any) -> bytes:
        """A document with some of its values replaced, as JSON or nearly so."""
        for _ in range(self._random.randint(1, 3)):
            document = self._changed_value(document)
        text = json.dumps(document, ensure_ascii=self._one_in(2))
        raw = self._random.choice(RAW)
        return text.replace(json.dumps(MARK), raw).encode("utf-8", "surrogatepass")

    def _changed_value(self, value: Any) -> Any:
        """Change a value, or one somewhere below it."""
        if isinstance(value, dict) and value:
            return self._changed_fields(value)
        if isinstance(value, list) and value and not self._one_in(6):
            return self._changed_items(value)
        return self._random.choice((MARK, MARK, [value], {"x": value}, self._value()))

    def _value(self) -> Any:
        return deepcopy(self._random.choice(VALUES))

    def _changed_fields(self, fields: dict[str, Any]) -> Any:
        name = self._random.choice(list(fields))
        change = self._random.randrange(12)
        if change == 0:
            del fields[name]
        elif change == 1:
            fields[self._random.choice(NAMES)] = self._value()
        elif change == 2:
            fields[self._random.choice(NAMES)] = fields.pop(name)
        elif change == 3:
            fields["version"] = self._value()
        elif change == 4:
            return self._value()
        else:
            fields[name] = self._changed_value(fields[name])
        return fields

    def _changed_items(self, items: list[Any]) -> list[Any]:
        index = self._random.randrange(len(items))
        change = self._random.randrange(10)
        if change == 0:
            del items[index]
        elif change == 1:
            items.insert(index, self._value())
        elif change == 2:
            items[:] = items * self._random.choice((2, 3, 10))
            del items[5000:]
        elif change == 3:
            self._random.shuffle(items)
        else:
            items[index] = self._changed_value(items[index])
        return items

    def _changed_bytes(self, content: bytes) -> bytes:
        """Change bytes without a regard to what they mean."""
        changed = bytearray(content)
        for _ in range(self._random.randint(1, 3)):
            start = self._random.randint(0, len(changed))
            stop = min(len(changed), start + self._random.randint(1, 40))
            change = self._random.randrange(9)
            if change == 0:
                del changed[start:]
            elif change == 1:
                del changed[start:stop]
            elif change == 2:
                changed[start:start] = changed[start:stop] * self._random.choice((1, 2, 50))
            elif change == 3:
                changed[start:start] = self._random.randbytes(self._random.randint(1, 10))
            elif change == 4:
                changed[start:stop] = self._random.choice(RAW).encode()
            elif change == 5:
                changed[start:start] = self._random.choice(BROKEN_TEXT)
            elif change == 6 and self._one_in(20):
                changed[start:start] = bytes([self._random.choice(b' [{"0,')]) * HUGE
            elif stop > start:
                changed[self._random.randrange(start, stop)] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    # Unframed requests

    def _unframed(self) -> Fuzzed:
        """Bytes that are nearly a request, or several, or none."""
        request = self._request(self._example())
        head, _, content = request.partition(b"\r\n\r\n")
        change = self._random.randrange(10)
        if change == 0:
            request = self._changed_bytes(head) + b"\r\n\r\n" + content
        elif change <= 3:
            lines = head.split(b"\r\n")
            lines.insert(self._random.randint(1, len(lines)), self._frame())
            request = b"\r\n".join([*lines, b"", content])
        elif change == 4:
            request = self._in_broken_chunks(content)
        elif change == 5:
            lines = [as_sent(self._request_line()), *head.split(b"\r\n")[1:]]
            request = b"\r\n".join([*lines, b"", content])
        elif change == 6:
            request = request[: self._random.randrange(len(request))]
        elif change == 7:
            request = self._random.randbytes(self._random.randint(1, 300))
        elif change == 8:
            several = [self.next() for _ in range(self._random.randint(2, 8))]
            # The reply to a HEAD tells a length and has none: not to be told from the others.
            request = b"".join(each.sent for each in several if each.method != "HEAD")
        else:
            request = request.replace(b"\r\n", self._random.choice((b"\n", b"\r", b"\r\n\r\n")))
        return Fuzzed(request, False)

    def _frame(self) -> bytes:
        return as_sent(self._random.choice(FRAMES))

    def _request_line(self) -> str:
        method = self._random.choice(("POST", *STRANGE_METHODS))
        path = self._random.choice(("/predict", *STRANGE_PATHS))
        return f"{method} {path} HTTP/{self._random.choice(VERSIONS)}"

    def _in_broken_chunks(self, content: bytes) -> bytes:
        chunks = self._changed_bytes(self._in_chunks(content))
        size = self._random.choice((b"", b"-1\r\n", b"g\r\n", b"f" * 20 + b"\r\n", b"0;" * 9000))
        return b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + size + chunks


def tensor_of(example: bytes) -> tuple[str, NDArray[np.float32]]:
    """Return the model of an example, and its instances as float32 (n, numbers of a row)."""
    document = json.loads(example)
    rows = [
        list(each.values()) if isinstance(each, dict) else each for each in document["instances"]
    ]
    return document["model"], np.array(rows, np.float32).reshape(len(rows), -1)


def as_sent(text: str) -> bytes:
    """Return text as bytes: latin-1, where headers may hold any byte, or UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()
