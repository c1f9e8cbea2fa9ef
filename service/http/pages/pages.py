"""The playground at / and the documentation at /docs: files of static/, compressed once.

The pages name everything else by a URL with the hash of all files, `/static/<hash>/main.js`: one
that changes renames all, so that modules that import one another never meet an older one, and
callers may keep them for ever. Browsers fetch the pages themselves each time.
"""

import gzip
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from service.entrance.services import Services
from service.errors import NotFound
from service.http.pages.modules import with_preloads, without_indentation
from service.http.preferences import wanted_encoding
from service.http.reply import Reply
from service.http.request import Request
from service.words import cut

FOLDER = Path(__file__).parent / "static"
STATIC = "static/"
PLACE = b"{{static}}"  # where a page names the folder of the others
ROOT = b"{{root}}"  # and that of all routes
BELOW = "docs/"  # the page of /docs, as it is at /docs/: what it names lies a folder higher

MEDIA_TYPES = {  # the framework adds the charset of text
    ".css": b"text/css",
    ".html": b"text/html",
    ".js": b"text/javascript",
    ".svg": b"image/svg+xml",
}
# Nothing from elsewhere and nothing inline. Images that need a key come as blob: URLs.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors ",
    ]
)
FOR_EVER = b"public, max-age=31536000, immutable"
VARY = (b"vary", b"accept-encoding")


class File(Struct, frozen=True):
    """A file as it is sent: plain, and compressed with gzip."""

    content: bytes
    compressed: bytes
    media_type: bytes
    etag: bytes


class Files(Struct, frozen=True):
    """The pages and their other files by name, and the hash of all."""

    digest: str
    pages: dict[str, File]
    others: dict[str, File]


class Pages:
    """The handlers of the pages and their files."""

    def __init__(self, files: Files, ancestors: str) -> None:
        """ancestors: who may show them in a frame, as Content-Security-Policy has it."""
        self._files = files
        self._security = [
            (b"content-security-policy", (POLICY + ancestors).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def show_index(self, services: Services, request: Request) -> Reply:
        """Answer GET /."""
        return self._page_unless_known("index.html", request)

    async def show_docs(self, services: Services, request: Request) -> Reply:
        """Answer GET /docs."""
        path = request.scope["raw_path"]  # by which a browser resolves what the page names
        if path.endswith(b"//"):
            return Reply([], 308, headers=[(b"location", b"../")])
        return self._page_unless_known(BELOW if path.endswith(b"/") else "docs.html", request)

    async def show_file(self, services: Services, request: Request) -> Reply:
        """Answer GET /static/{of}/{name}."""
        name = request.values["name"]
        if request.values["of"] != self._files.digest or name not in self._files.others:
            path = cut(request.scope["path"])
            raise NotFound(f"GET {path}: no such file; / names those there are")
        return self._sent(self._files.others[name], request, FOR_EVER)

    def _page_unless_known(self, name: str, request: Request) -> Reply:
        """Return a page, or 304 if the caller has it (RFC 9110, section 13.1.2)."""
        page = self._files.pages[name]
        known = request.headers.get(b"if-none-match", b"")
        if known.strip() == b"*" or page.etag in known:
            headers = [(b"etag", page.etag), (b"cache-control", b"no-cache"), VARY]
            return Reply([], 304, page.media_type, headers)
        return self._sent(page, request, b"no-cache")

    def _sent(self, file: File, request: Request, cache_control: bytes) -> Reply:
        """Return a file, compressed if the caller takes gzip."""
        headers = [*self._security, (b"etag", file.etag), (b"cache-control", cache_control), VARY]
        content = file.content
        if wanted_encoding(request.headers.get(b"accept-encoding", b"")) == "gzip":
            headers.append((b"content-encoding", b"gzip"))
            content = file.compressed
        return Reply([content], 200, file.media_type, headers)


def read(folder: Path = FOLDER) -> Files:
    """Return the files of a folder."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in MEDIA_TYPES)
    contents = {path.name: without_indentation(path.read_bytes()) for path in paths}
    digests = sha256()
    for name, content in contents.items():
        digests.update(b"%s %d\n" % (name.encode(), len(content)) + content)
    digest = digests.hexdigest()[:16]
    pages, others = {}, {}
    for name, content in contents.items():
        if not name.endswith(".html"):
            others[name] = _file(name, content)
            continue
        page = with_preloads(content, contents)
        pages[name] = _file(name, _placed(page, digest, ""))
        if name == "docs.html":
            pages[BELOW] = _file(name, _placed(page, digest, "../"))
    return Files(digest, pages, others)


def _placed(page: bytes, digest: str, up: str) -> bytes:
    """Return a page with the way to the others, which is relative: a proxy may add a prefix.

    up: the way to the folder of all routes.
    """
    static = f"{up}{STATIC}{digest}"
    return page.replace(PLACE, static.encode()).replace(ROOT, (up or ".").encode())


def _file(name: str, content: bytes) -> File:
    etag = f'W/"{sha256(content).hexdigest()[:16]}"'  # weak: the same, compressed or not
    compressed = gzip.compress(content, 9, mtime=0)
    return File(content, compressed, MEDIA_TYPES[Path(name).suffix], etag.encode())
