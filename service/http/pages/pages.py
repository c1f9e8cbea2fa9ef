"""The playground at / and the documentation at /docs: files of static/, packed once.

The pages name everything else by a URL with the hash of all files, `/static/<hash>/main.js`: one
that changes renames all, so that modules which import one another never meet an older one, and
callers may keep them for ever. The pages themselves are asked for each time.
"""

import gzip
from hashlib import sha256
from pathlib import Path

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from service.errors import NotFound
from service.http.access import DOCS, INDEX, STATIC
from service.http.replies import Asked, Reply, takes_gzip

FOLDER = Path(__file__).parent / "static"
PLACE = b"{{static}}"  # where a page names the folder of the others

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
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
SECURITY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
FOR_EVER = "public, max-age=31536000, immutable"


class File(Struct, frozen=True):
    """A file as it is sent: plain, and packed with gzip."""

    content: bytes
    packed: bytes
    media_type: str
    etag: str


def route_handlers(folder: Path = FOLDER) -> list[HTTPRouteHandler]:
    """Return the handlers of the pages and their files, which are read and packed here."""
    digest, pages, files = read(folder)

    @get(INDEX, sync_to_thread=False)
    def show_index(request: Asked) -> Reply:
        return page_unless_known(pages["index.html"], request)

    @get(DOCS, sync_to_thread=False)
    def show_docs(request: Asked) -> Reply:
        if request.scope["raw_path"].endswith(b"/"):  # what the page names is relative
            return Response(b"", status_code=308, headers={"location": "../docs"})
        return page_unless_known(pages["docs.html"], request)

    @get(STATIC + "{of:str}/{name:str}", sync_to_thread=False)
    def show_file(request: Asked, of: FromPath[str], name: FromPath[str]) -> Reply:
        if of != digest or name not in files:
            raise NotFound(
                f"GET {request.scope['path'][:80]}: no such file; / names those there are"
            )
        return sent(files[name], request, FOR_EVER)

    return [show_index, show_docs, show_file]


def read(folder: Path) -> tuple[str, dict[str, File], dict[str, File]]:
    """Return the hash of all files of a folder, its pages and its other files by name."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in MEDIA_TYPES)
    contents = {path.name: path.read_bytes() for path in paths}
    whole = sha256()
    for name, content in contents.items():
        whole.update(b"%s %d\n" % (name.encode(), len(content)) + content)
    digest = whole.hexdigest()[:16]
    here = f"{STATIC.removeprefix('/')}{digest}".encode()  # relative: a proxy may add a prefix
    pages, files = {}, {}
    for name, content in contents.items():
        if name.endswith(".html"):
            pages[name] = _file(name, content.replace(PLACE, here))
        else:
            files[name] = _file(name, content)
    return digest, pages, files


def _file(name: str, content: bytes) -> File:
    etag = f'W/"{sha256(content).hexdigest()[:16]}"'  # weak: the same, packed or not
    packed = gzip.compress(content, 9, mtime=0)
    return File(content, packed, MEDIA_TYPES[Path(name).suffix], etag)


def page_unless_known(page: File, request: Asked) -> Reply:
    """Return a page, or 304 if the caller has it (RFC 9110, section 13.1.2)."""
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or page.etag in known:
        headers = {"etag": page.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        return Response(b"", status_code=304, headers=headers)
    return sent(page, request, "no-cache")


def sent(file: File, request: Asked, cache_control: str) -> Reply:
    """Return a file, packed if the caller takes gzip."""
    headers = SECURITY | {
        "etag": file.etag,
        "cache-control": cache_control,
        "vary": "accept-encoding",
    }
    content = file.content
    if takes_gzip(request):
        headers["content-encoding"], content = "gzip", file.packed
    return Response(content, media_type=file.media_type, headers=headers)
