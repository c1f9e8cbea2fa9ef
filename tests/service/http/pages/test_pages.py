import gzip
import re
import shutil
from pathlib import Path

import httpx
import pytest

from service.http.access import Access
from service.http.pages import pages as page
from service.http.routes import routes_for
from service.settings import Settings
from tests.support.toys import save_sum, save_toy, serving, toy_card

pytestmark = pytest.mark.anyio

KEY = "a-key-that-is-long-enough"
PLAIN = {"accept-encoding": "identity"}
URLS = re.compile(r'(?:href|src)="([^"]+)"')


@pytest.fixture(scope="module")
def client(shared_client: httpx.AsyncClient) -> httpx.AsyncClient:
    return shared_client


async def named_files(client: httpx.AsyncClient, path: str) -> list[str]:
    """Return what a page names that is served from static/."""
    text = (await client.get(path)).text
    return ["/" + url for url in URLS.findall(text) if url.startswith("static/")]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_is_asked_for_each_time_and_names_files_by_their_hash(
    client: httpx.AsyncClient, path: str
) -> None:
    reply = await client.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert "{{" not in reply.text
    urls = await named_files(client, path)
    assert len(urls) > 5
    assert all(re.fullmatch(r"/static/[0-9a-f]{16}/[a-z]+\.(js|css|svg)", url) for url in urls)


async def test_a_slash_behind_docs_leads_to_the_same_files(client: httpx.AsyncClient) -> None:
    """What a page names is relative, and a browser takes the slash for a folder."""
    reply = await client.get("/docs/")
    assert reply.status_code == 200
    urls = [url for url in URLS.findall(reply.text) if not url.startswith("#")]
    assert [f"/{url.removeprefix('../')}" for url in urls] == await named_files(client, "/docs")
    assert 'data-root="../"' in reply.text
    assert 'data-root="."' in (await client.get("/docs")).text
    several = await client.get("/docs///")  # a slash less each time
    assert (several.status_code, several.headers["location"]) == (308, "../")


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_files_may_be_kept_for_ever(client: httpx.AsyncClient, path: str) -> None:
    types = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
    for url in await named_files(client, path):
        reply = await client.get(url)
        assert reply.status_code == 200, url
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert reply.headers["content-type"] == types.get(Path(url).suffix, "image/svg+xml")
        assert reply.headers["x-content-type-options"] == "nosniff"


async def test_modules_are_all_named_by_their_page_and_ask_only_for_one_another(
    client: httpx.AsyncClient,
) -> None:
    for path in ("/", "/docs"):
        urls = await named_files(client, path)
        for url in urls:
            if not url.endswith(".js"):
                continue
            imports = re.findall(r'\bfrom "([^"]+)"', (await client.get(url)).text)
            assert all(name.startswith("./") for name in imports)
            folder = url.rsplit("/", 1)[0]
            assert {f"{folder}/{name[2:]}" for name in imports} <= set(urls), url


async def test_no_file_of_ours_asks_elsewhere() -> None:
    for path in page.FOLDER.iterdir():
        assert path.suffix in page.MEDIA_TYPES, path
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_scripts_and_styles_come_only_from_here(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)
    policy = dict(
        each.strip().split(" ", 1) for each in reply.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=", reply.text)


async def test_pages_may_be_shown_in_a_frame_by_those_who_are_set(tmp_path: Path) -> None:
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, frame_ancestors="self https://*.example")
    async with serving(settings) as client:
        for path in ("/", "/docs", "/docs/"):
            policy = (await client.get(path)).headers["content-security-policy"]
            assert policy.endswith("; frame-ancestors 'self' https://*.example")


async def test_a_page_that_is_known_is_not_sent_again(client: httpx.AsyncClient) -> None:
    etag = (await client.get("/")).headers["etag"]
    for known in (etag, f'"other", {etag}', "*"):
        reply = await client.get("/", headers={"if-none-match": known})
        assert (reply.status_code, reply.content) == (304, b"")
        assert reply.headers["etag"] == etag
    assert (await client.get("/", headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "style.css"])
async def test_files_are_compressed_for_those_who_take_it(
    client: httpx.AsyncClient, path: str
) -> None:
    if path == "style.css":
        path = next(url for url in await named_files(client, "/") if url.endswith(path))
    plain = await client.get(path, headers=PLAIN)
    assert "content-encoding" not in plain.headers
    for accept, encoding in (("gzip, br", "gzip"), ("gzip;q=0", None), ("br", None)):
        reply = await client.get(path, headers={"accept-encoding": accept})
        assert reply.headers.get("content-encoding") == encoding
        assert reply.headers["vary"] == "accept-encoding"
        assert reply.content == plain.content
        if encoding:
            assert int(reply.headers["content-length"]) < len(plain.content)


@pytest.mark.parametrize("path", ["/models", "/metrics", "/schema/openapi.json"])
async def test_what_pages_read_is_compressed_too(client: httpx.AsyncClient, path: str) -> None:
    plain = await client.get(path, headers=PLAIN)
    compressed = await client.get(path, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.headers["content-type"] == plain.headers["content-type"]
    assert int(compressed.headers["content-length"]) < len(plain.content)
    if path != "/metrics":
        assert compressed.json() == plain.json()


def test_everything_is_renamed_when_one_file_changes(tmp_path: Path) -> None:
    folder = tmp_path / "static"
    shutil.copytree(page.FOLDER, folder)
    before = page.read(folder)
    assert before == page.read(page.FOLDER)
    (folder / "dom.js").write_text((folder / "dom.js").read_text() + "\n")
    after = page.read(folder)
    assert before.digest != after.digest
    assert after.digest.encode() in after.pages["index.html"].content
    assert before.pages["index.html"].etag != after.pages["index.html"].etag
    assert before.others["style.css"] == after.others["style.css"]
    assert gzip.decompress(after.others["dom.js"].compressed) == after.others["dom.js"].content


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "index.html", "%2e%2e%2fapp.py", "..%2Fapp.py", "../app.py", "%2fetc%2fpasswd"],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, name: str) -> None:
    folder = (await named_files(client, "/"))[0].rsplit("/", 1)[0]
    reply = await client.get(f"{folder}/{name}")
    assert reply.status_code == 404
    assert list(reply.json()) == ["error"]
    assert (await client.get(f"/static/0000/{name}")).status_code == 404


async def test_a_file_of_another_build_is_not_found(client: httpx.AsyncClient) -> None:
    reply = await client.get("/static/0123456789abcdef/main.js")
    assert reply.status_code == 404
    assert reply.json()["error"].startswith("GET /static/0123456789abcdef/main.js: no such file")


@pytest.mark.parametrize("path", ["/", "/docs", "main.js"])
async def test_pages_are_only_read(client: httpx.AsyncClient, path: str) -> None:
    if path == "main.js":
        path = next(url for url in await named_files(client, "/") if url.endswith(path))
    for method in ("POST", "PUT", "DELETE"):
        reply = await client.request(method, path)
        assert reply.status_code == 405
        assert reply.json()["error"].startswith("method: expected GET")


async def test_a_page_needs_no_key_and_what_it_shows_does(tmp_path: Path) -> None:
    save_toy(tmp_path / "models", card=toy_card())
    settings = Settings(models_dir=tmp_path / "models", api_keys=KEY, protect_metrics=True)
    async with serving(settings) as client:
        urls = ["/", "/docs", *await named_files(client, "/")]
        for url in urls:
            assert (await client.get(url)).status_code == 200, url
        for url in ("/models", "/schema/openapi.json", "/metrics", "/docs/x", "/staticx"):
            assert (await client.get(url)).status_code == 401, url
        assert (await client.post("/")).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        assert (await client.get("/models", headers=headers)).status_code == 200


def test_pages_are_no_probes_and_wait_with_the_others() -> None:
    access = Access(Settings(), routes_for(Settings()))
    assert not any(access.is_essential("GET", path) for path in ("/", "/docs", "/static/a/b.js"))


async def test_a_model_says_why_it_takes_no_rows(tmp_path: Path) -> None:
    save_toy(tmp_path, card=toy_card())
    save_sum(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        listed = (await client.get("/models")).json()["models"]
    why = {each["model"]: each["versions"][0].get("why_no_rows") for each in listed}
    assert why["toy"] is None
    assert why["sum"] == "it has 2 inputs, and left holds more than one value of a row"


def test_all_files_are_few() -> None:
    """A first load is to be under 100 kB; what it shows of the models comes on top."""
    files = page.read(page.FOLDER)
    sent = [*files.pages.values(), *files.others.values()]
    assert sum(len(each.compressed) for each in sent) < 60_000
