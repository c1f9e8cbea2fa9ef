"""THE table of routes, and what follows it: dispatch, access, reserved paths."""

import asyncio
import gzip
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidSetting
from service.http.access import Access
from service.http.app import create_app
from service.http.route import Route
from service.http.routes import ROUTES, routes_for
from service.settings import Settings
from service.settings.shadows import ShadowVersions
from tests.support.toys import body, save_pictured, serving

pytestmark = pytest.mark.anyio

KEY = "a-key-of-24-characters-01"
PREDICT = "/v1/endpoints/1/deployedModels/2:predict"
HEALTH = "/v1/endpoints/1/deployedModels/2"
ALL = routes_for(Settings(predict_route=PREDICT, health_route=HEALTH))
OPEN = {route.path for route in ALL if route.who != "key"}


def path_of(route: Route) -> str:
    """Return a path of a route, that of something that there is."""
    values = {"model": "toy", "version": "1", "picture": "loss.png", "of": "x", "name": "x.js"}
    path = route.path.format(**values)
    return path.replace("/prepare/toy", "/prepare/mean")


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


async def ask(client: httpx.AsyncClient, method: str, path: str, **headers: str) -> httpx.Response:
    content = body("toy", [[1, 2, 3, 4]]) if method == "POST" else None
    return await client.request(method, path, content=content, headers=headers)


@pytest.fixture
def models_dir(models_dir: Path) -> Path:
    picture = save_pictured(models_dir)
    shutil.copytree(picture.parent, models_dir / "toy/2")
    return models_dir


def chosen(models_dir: Path, **more: object) -> Settings:
    return Settings(
        models_dir=models_dir,
        predict_route=PREDICT,
        health_route=HEALTH,
        model_control=True,
        default_model="toy",
        shadow=ShadowVersions("toy/1=2"),
        **more,
    )


def test_no_route_stands_in_the_table_twice() -> None:
    keys = [(route.method, route.path) for route in ALL]
    assert len(set(keys)) == len(keys)


async def test_each_route_answers_at_its_path(models_dir: Path) -> None:
    """Not with 404 as a path that is none, nor 405."""
    async with serving(chosen(models_dir)) as client:
        for route in ALL:
            reply = await ask(client, route.method, path_of(route))
            if path_of(route).startswith("/static/x/"):  # a file of another build
                assert reply.json()["error"].startswith("GET /static/x/x.js: no such file")
            else:
                assert reply.status_code in (200, 400), named(route)
            assert "no such path" not in reply.text, named(route)


# What is sent to the routes that do not take rows; what would change a model is wrong.
TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
SENT = {
    "infer": {"inputs": [TENSOR]},
    "index": {"ready": 1},
    "load": {"parameters": 1},
    "unload": {"parameters": 1},
}


async def test_each_route_takes_a_body_that_is_compressed_or_begins_with_a_mark(
    models_dir: Path,
) -> None:
    async with serving(chosen(models_dir)) as client:
        for route in ALL:
            if route.method == "POST":
                path, sent = path_of(route), SENT.get(route.path.rpartition("/")[2])
                plain = json.dumps(sent).encode() if sent else body("toy", [[1, 2, 3, 4]])
                replies = [
                    await client.post(path, content=content, headers={"X-Request-Id": "1"} | more)
                    for content, more in (
                        (plain, {}),
                        (gzip.compress(plain), {"Content-Encoding": "gzip"}),
                        (b"\xef\xbb\xbf" + plain, {}),
                    )
                ]
                assert "JSON" not in replies[0].text, named(route)
                assert len({(each.status_code, each.text) for each in replies}) == 1, named(route)


async def test_each_route_takes_its_method_alone(models_dir: Path) -> None:
    methods = {path_of(route): set[str]() for route in ALL}
    for route in ALL:
        methods[path_of(route)] |= {route.method} | ({"HEAD"} if route.method == "GET" else set())
    async with serving(chosen(models_dir)) as client:
        for path, taken in methods.items():
            for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} - taken:
                reply = await ask(client, method, path)
                assert reply.status_code == 405, (method, path)
                allowed = set(reply.headers["allow"].split(", ")) - {"OPTIONS"}
                assert allowed == taken, (method, path)


async def test_who_may_call_is_what_the_table_says(models_dir: Path) -> None:
    settings = chosen(models_dir, api_keys=KEY)
    async with serving(settings) as client:
        for route in ALL:
            reply = await ask(client, route.method, path_of(route))
            assert (reply.status_code == 401) == (route.who == "key"), named(route)
        for route in ALL:
            reply = await ask(client, route.method, path_of(route), **{"x-api-key": KEY})
            assert reply.status_code != 401, named(route)


@pytest.mark.parametrize(
    ("field", "closed"), [("protect_health", "probe"), ("protect_metrics", "metrics")]
)
async def test_probes_and_metrics_are_closed_each_by_its_setting(
    models_dir: Path, field: str, closed: str
) -> None:
    async with serving(chosen(models_dir, api_keys=KEY, **{field: True})) as client:
        for route in ALL:
            reply = await ask(client, route.method, path_of(route))
            assert (reply.status_code == 401) == (route.who in ("key", closed)), named(route)


def test_only_what_says_nothing_of_the_models_or_is_a_probe_is_open() -> None:
    """A row that is added is closed, unless somebody writes it here too."""
    assert {(route.path, route.who) for route in ALL if route.who != "key"} == {
        ("/", "everybody"),
        ("/docs", "everybody"),
        ("/static/{of}/{name}", "everybody"),
        ("/health/live", "probe"),
        ("/health/ready", "probe"),
        ("/ping", "probe"),
        ("/v2/health/live", "probe"),
        ("/v2/health/ready", "probe"),
        (HEALTH, "probe"),
        ("/metrics", "metrics"),
    }
    assert all(route.method == "GET" for route in ALL if route.who != "key")


async def test_slashes_behind_a_path_or_doubled_change_nothing(models_dir: Path) -> None:
    """Clients join "http://host:8000/" and "/predict", and proxies add a slash behind."""
    async with serving(chosen(models_dir, api_keys=KEY)) as client:
        for route in ALL:
            path = path_of(route)
            others = [path + "/" * (path != "/"), "/" + path, path.replace("/", "//")]
            for headers in ({}, {"x-api-key": KEY}):
                expected = await ask(client, route.method, path, **headers)
                for other in others:
                    reply = await ask(client, route.method, f"http://toy{other}", **headers)
                    assert reply.status_code == expected.status_code, (other, headers)
                    assert reply.headers["content-type"] == expected.headers["content-type"], other


SEGMENTS = ["", ".", "..", "health", "live", "ready", "metrics", "ping", "docs", "static", "x"]
SEGMENTS += ["models", "toy", "1", "v2", "schema", "openapi.json", "predict", "invocations", "%2e"]
PATHS = st.lists(st.sampled_from(SEGMENTS), max_size=4).map(lambda parts: "/" + "/".join(parts))


def as_one_reads_it(path: str) -> str:
    """Return a path without empty segments: several slashes are one."""
    return "/" + "/".join(name for name in path.split("/") if name)


@settings(max_examples=500)
@given(PATHS)
def test_a_path_is_open_only_where_it_is_that_of_an_open_route(path: str) -> None:
    """What begins like one, or leads elsewhere with dots, is not."""
    access = Access(Settings(api_keys=KEY), ALL)
    plain = as_one_reads_it(path)
    is_file = plain.startswith("/static/") and plain.count("/") == 3
    is_open = plain in OPEN or is_file
    if access.who("GET", path) != "key":
        assert is_open, path
    assert access.who("OPTIONS", path) == access.who("GET", path)
    assert access.who("POST", path) == "key"


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PATHS, min_size=20, max_size=20))
def test_what_is_open_shows_no_more_than_its_route(models_dir: Path, paths: list[str]) -> None:
    """Dispatch and access read a path alike, dots and empty segments too."""
    app = create_app(Settings(models_dir=models_dir, api_keys=KEY, health_route=HEALTH))

    async def ask_all() -> None:
        for path in paths:
            sent: list[Any] = []

            async def send(
                message: dict[str, object], sent: list[dict[str, object]] = sent
            ) -> None:
                sent.append(message)

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            scope: Any = {
                "type": "http",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [],
                "extensions": {},
            }
            await app(scope, receive, send)
            if sent[0]["status"] == 200:
                assert as_one_reads_it(path) in OPEN, path
            assert (sent[0]["status"] == 401) == (app.access.who("GET", path) == "key"), path

    asyncio.run(ask_all())


@pytest.mark.parametrize(
    "path",
    [
        *("/models", "/models/iris", "/prepare", "/prepare/iris", "/metrics", "/metrics/predict"),
        *("/ping", "/execution-parameters", "/docs", "/static", "/static/x", "/schema"),
        *("/health", "/health/live", "/health/predict", "/v2/health", "/v2/health/ready"),
        *("//models", "/models//", "//v2//health/live/"),
        *("/v2/repository/index", "/v2/repository/models/iris/load"),
    ],
)
def test_no_path_to_predict_hides_what_is_there(path: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        routes_for(Settings(predict_route=path))
    assert raised.value.variable == "TORCHLIT_PREDICT_ROUTE"
    assert str(raised.value) == (
        "TORCHLIT_PREDICT_ROUTE or AIP_PREDICT_ROUTE: expected a path that says nothing else here, "
        f"got {as_one_reads_it(path)!r}"
    )


@pytest.mark.parametrize(
    "path",
    [
        *("/models", "/models/iris", "/prepare", "/metrics", "/metrics/x", "/schema/x"),
        *("/execution-parameters", "/docs", "/static/x/y.js", "//models", "/docs/", "//schema//x"),
    ],
)
def test_no_path_to_health_hides_what_is_there(path: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        routes_for(Settings(health_route=path))
    assert raised.value.variable == "TORCHLIT_HEALTH_ROUTE"
    assert str(raised.value) == (
        "TORCHLIT_HEALTH_ROUTE or AIP_HEALTH_ROUTE: expected a path that says nothing else here, "
        f"got {as_one_reads_it(path)!r}"
    )


@pytest.mark.parametrize(
    "path", ["/pinged", "/healthy", "/modelsx", "/v1/models/iris:predict", "/a/models", "/x"]
)
def test_a_path_that_begins_like_another_is_free(path: str) -> None:
    for field in ("predict_route", "health_route"):
        added = routes_for(Settings(**{field: path}))[-1]
        assert added.path == path
        assert added.who == ("key" if field == "predict_route" else "probe")


@pytest.mark.parametrize(
    ("path", "values"),
    [("/predict", {}), ("/predict/iris", {"model": "iris"}), ("/invocations", {}), ("/x", {})],
)
def test_the_path_to_predict_may_name_a_model(path: str, values: dict[str, str]) -> None:
    added = routes_for(Settings(predict_route=path))[-1]
    assert (added.method, added.path, added.values) == ("POST", path, values)


async def test_slashes_in_the_paths_of_platforms_change_nothing(models_dir: Path) -> None:
    slashes = {"predict_route": "//v1//a:predict/", "health_route": "/v1//a//"}
    settings = Settings(models_dir=models_dir, default_model="toy", api_keys=KEY, **slashes)
    async with serving(settings) as client:
        for path in ("/v1/a", "/v1/a/", "//v1//a"):
            assert (await ask(client, "GET", f"http://toy{path}")).json()["status"] == "ready"
        for path in ("/v1/a:predict", "/v1/a:predict/", "//v1/a:predict"):
            url, content = f"http://toy{path}", b'{"instances": [[1, 2, 3, 4]]}'
            assert (await client.post(url, content=content)).status_code == 401
            reply = await client.post(url, content=content, headers={"x-api-key": KEY})
            assert list(reply.json()) == ["predictions"]


@pytest.mark.parametrize("path", ["/ping", "/health/ready/", "//v2/health/live"])
def test_a_probe_that_there_is_stays_the_probe_that_it_is(path: str) -> None:
    routes = routes_for(Settings(health_route=path))
    assert [route.path for route in routes] == [route.path for route in routes_for(Settings())]


@pytest.mark.parametrize("path", ["/", "/v2", "/v2/models"])
async def test_health_may_take_the_place_of_what_is_read_there(models_dir: Path, path: str) -> None:
    settings = Settings(models_dir=models_dir, health_route=path, api_keys=KEY)
    async with serving(settings) as client:
        assert (await client.get(path)).json()["status"] == "ready"
        for other in ("/models", "/v2/models/toy", "/v2/models/stats", "/schema/openapi.json"):
            assert (await client.get(other)).status_code == 401, other  # no more is open than that


def test_every_row_of_the_table_that_programs_call_is_described() -> None:
    undescribed = {route.path for route in ALL if route.document is None}
    assert undescribed == {"/", "/docs", "/static/{of}/{name}", "/schema/openapi.json"}


def test_paths_are_written_one_way() -> None:
    for route in ROUTES:
        assert route.path.startswith("/")
        assert not route.path.endswith("/")
        assert "//" not in route.path
    for one, other in itertools.combinations([route.path for route in ROUTES], 2):
        assert one == other or one.casefold() != other.casefold()
