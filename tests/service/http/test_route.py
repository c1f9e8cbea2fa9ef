"""Which route a path is of."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.route import Route, Router


def route(path: str, **more: Any) -> Route:
    handler: Any = None
    return Route(path, "GET", handler, "", **more)


ROUTER = Router(
    [
        route("/"),
        route("/models"),
        route("/models/{model}"),
        route("/models/{model}/{version}/{picture}"),
        route("/v2/models/{model}/infer"),
        route("/v2/models/{model}/versions/{version}/infer"),
        route("/v1/a.b:predict"),
    ]
)


@pytest.mark.parametrize(
    ("path", "expected", "values"),
    [
        ("/", "/", {}),
        ("/models", "/models", {}),
        ("/models/", "/models", {}),
        ("/models/iris", "/models/{model}", {"model": "iris"}),
        ("/models/iris/", "/models/{model}", {"model": "iris"}),
        ("/models/a b\n", "/models/{model}", {"model": "a b\n"}),
        (
            "/models/iris/1/x.png",
            "/models/{model}/{version}/{picture}",
            {"model": "iris", "version": "1", "picture": "x.png"},
        ),
        ("/v2/models/iris/infer", "/v2/models/{model}/infer", {"model": "iris"}),
        (
            "/v2/models/iris/versions/7/infer",
            "/v2/models/{model}/versions/{version}/infer",
            {"model": "iris", "version": "7"},
        ),
        ("/v1/a.b:predict", "/v1/a.b:predict", {}),
        ("//", "/", {}),
        ("//models", "/models", {}),
        ("/models///", "/models", {}),
        ("/models//iris//", "/models/{model}", {"model": "iris"}),
        ("//v2//models/iris/infer", "/v2/models/{model}/infer", {"model": "iris"}),
    ],
)
def test_a_path_has_its_route_and_what_stands_in_the_places(
    path: str, expected: str, values: dict[str, str]
) -> None:
    found = ROUTER.find(path)
    assert found is not None
    assert (found[0].path, found[1]) == (expected, values)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/Models",
        "/model",
        "/modelsx",
        "/models//1/x.png",
        "/models/iris/1",
        "/models/iris/1/x/y.png",
        "/v2/models//infer",
        "/v2/models/iris/infer/x",
        "/v2/models/iris/versions/infer",
        "/v2/models/a/b/infer",
        "/x/v2/models/iris/infer",
        "/v1/axb:predict",  # a point is a point
        "models",
    ],
)
def test_any_other_path_has_none(path: str) -> None:
    assert ROUTER.find(path) is None


def test_of_two_routes_with_one_path_the_last_counts() -> None:
    first, last = route("/predict"), route("/predict", values={"model": "iris"})
    found = Router([first, last]).find("/predict")
    assert found == (last, {"model": "iris"})


def test_a_path_that_is_exact_comes_before_one_with_places() -> None:
    exact = route("/predict/iris")
    found = Router([exact, route("/predict/{model}")]).find("/predict/iris")
    assert found == (exact, {})


@given(st.text(st.characters(exclude_characters="/"), min_size=1))
def test_a_name_is_all_that_stands_in_its_segment(name: str) -> None:
    found = ROUTER.find(f"/v2/models/{name}/infer")
    assert found is not None
    assert found[1] == {"model": name}
    assert ROUTER.find(f"/v2/models/{name}/{name}/infer") is None


def test_a_path_is_found_again_as_it_was_found_first() -> None:
    router = Router([route("/models"), route("/models/{model}")])
    for _ in range(2):
        for number in range(3000):  # more than are remembered
            found = router.find(f"/models/{number}")
            assert found is not None
            assert found[1] == {"model": str(number)}
        assert router.find("/models") is not None
        assert router.find("/x") is None


def test_paths_that_callers_make_up_take_little_memory() -> None:
    """Who has no key may send them too, each as long as a head may be."""
    router = Router([route("/models/{model}")])
    tracemalloc.start()
    for number in range(300):
        assert router.find(f"/models/{number}{'x' * 60_000}") is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000


def test_a_route_that_ends_with_a_slash_is_found_without_it_too() -> None:
    router = Router([route("/x/")])
    for path in ("/x", "/x/"):
        found = router.find(path)
        assert found is not None
        assert found[0].path == "/x/"
