"""The playground at / and the documentation at /docs: files of static/, compressed once.

The pages name everything else by a URL with the hash of all files, `/static/<hash>/main.js`: one
that changes renames all, so that modules which import one another never meet an older one, and
callers may keep them for ever. The pages themselves are asked for each time.
"""

import gzip
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from service.errors import NotFound
from service.http import compression
from service.http.pages.modules import with_preloads, without_indentation
from service.http.reply import Reply
from service.http.request import Request
from service.http.services import Services
from service.words import cut

FOLDER = Path(__file__).parent / "static"
STATIC = "static/"
PLACE = b"{{static}}"  # where a page names the folder of the others

MEDIA_TYPES = {  # the framework adds the charset of text
    ".css": b"text/css",
    ".html": b"text/html",
    ".js": b"text/javascript",
    ".svg": b"image/svg+xml",
}
# Nothing from elsewhere and nothing inline. Pictures that need a key come as blob: URLs.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
SECURITY = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
FOR_EVER = b"public, max-age=31536000, immutable"
VARY = (b"vary", b"accept-encoding")


class File(Struct, frozen=True):
    """A file as it is sent: plain, and compressed with gzip."""

    content: bytes
    compressed: bytes
    media_type: bytes
    etag: bytes


class Pages:
    """The pages and their files, which are read and compressed here."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.digest, self.pages, self.files = read(folder)

    async def show_index(self, services: Services, request: Request) -> Reply:
        """Answer GET /."""
        return _page_unless_known(self.pages["index.html"], request)

    async def show_docs(self, services: Services, request: Request) -> Reply:
        """Answer GET /docs."""
        if request.scope["raw_path"].endswith(b"/"):  # what the page names is relative
            return Reply([], 308, headers=[(b"location", b"../docs")])
        return _page_unless_known(self.pages["docs.html"], request)

    async def show_file(self, services: Services, request: Request) -> Reply:
        """Answer GET /static/{of}/{name}."""
        name = request.values["name"]
        if request.values["of"] != self.digest or name not in self.files:
            path = cut(request.scope["path"])
            raise NotFound(f"GET {path}: no such file; / names those there are")
        return _sent(self.files[name], request, FOR_EVER)


def read(folder: Path) -> tuple[str, dict[str, File], dict[str, File]]:
    """Return the hash of all files of a folder, its pages and its other files by name."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in MEDIA_TYPES)
    contents = {path.name: without_indentation(path.read_bytes()) for path in paths}
    whole = sha256()
    for name, content in contents.items():
        whole.update(b"%s %d\n" % (name.encode(), len(content)) + content)
    digest = whole.hexdigest()[:16]
    here = f"{STATIC}{digest}".encode()  # relative: a proxy may add a prefix
    pages, files = {}, {}
    for name, content in contents.items():
        if name.endswith(".html"):
            pages[name] = _file(name, with_preloads(content, contents).replace(PLACE, here))
        else:
            files[name] = _file(name, content)
    return digest, pages, files


def _file(name: str, content: bytes) -> File:
    etag = f'W/"{sha256(content).hexdigest()[:16]}"'  # weak: the same, compressed or not
    compressed = gzip.compress(content, 9, mtime=0)
    return File(content, compressed, MEDIA_TYPES[Path(name).suffix], etag.encode())


def _page_unless_known(page: File, request: Request) -> Reply:
    """Return a page, or 304 if the caller has it (RFC 9110, section 13.1.2)."""
    known = request.headers.get(b"if-none-match", b"")
    if known.strip() == b"*" or page.etag in known:
        headers = [(b"etag", page.etag), (b"cache-control", b"no-cache"), VARY]
        return Reply([], 304, page.media_type, headers)
    return _sent(page, request, b"no-cache")


def _sent(file: File, request: Request, cache_control: bytes) -> Reply:
    """Return a file, compressed if the caller takes gzip."""
    headers = [*SECURITY, (b"etag", file.etag), (b"cache-control", cache_control), VARY]
    content = file.content
    if compression.wanted(request.headers.get(b"accept-encoding", b"")) == "gzip":
        headers.append((b"content-encoding", b"gzip"))
        content = file.compressed
    return Reply([content], 200, file.media_type, headers)
