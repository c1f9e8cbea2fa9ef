"""The documentation page in a real browser, over a real service."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.processes import Process
from tests.system.browser.drawing import until

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
# Operations that a service with default settings refuses.
NOT_SERVED = {
    "GET /models/{model}/shadow",  # unless a version has one
    *(f"POST /v2/repository/models/{{model}}/{what}" for what in ("load", "unload")),
}


def operations(service: Process) -> dict[str, Any]:
    document = httpx.get(f"{service.url}/schema/openapi.json").json()
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_every_operation_is_shown_and_found(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs")
    shown = page.locator("details.operation")
    shown.first.wait_for()
    names = shown.locator("summary").evaluate_all(
        """(all) => all.map(({children: [method, path]}) =>
          `${method.textContent.toUpperCase()} ${path.textContent}`)"""
    )
    assert sorted(names) == sorted(operations(service))
    page.get_by_label("Filter operations").fill("post infer")
    visible = page.locator("details.operation:visible .path").all_inner_texts()
    assert visible
    assert all("infer" in path for path in visible)


def test_all_operations_are_shown_and_open(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs")
    page.locator("details.operation").first.wait_for()
    shown_ms = page.evaluate("performance.now()")
    opened_ms = page.evaluate(
        """() => {
          const start = performance.now();
          for (const each of document.querySelectorAll("details.operation")) each.open = true;
          document.body.offsetHeight;
          return performance.now() - start;
        }"""
    )
    print(f"\n/docs: shown after {shown_ms:.0f} ms, all operations opened in {opened_ms:.0f} ms")
    shown = page.locator("details.operation[open]").count()
    assert shown == len(operations(service))


def test_every_operation_can_be_sent_as_it_stands(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs", permitted="the server responded with a status of")
    page.locator("details.operation").first.wait_for()
    sent = 0
    for name, operation in operations(service).items():
        element = page.locator(f"details#{operation['operationId']}")
        element.evaluate("(each) => { each.open = true; }")
        form = element.locator("form")
        form.wait_for()
        form.get_by_role("button", name="Send").click()
        status = form.locator(".reply-head .code").inner_text()
        assert status == "200" or (name in NOT_SERVED and status != "500"), (name, status)
        sent += 1
    assert sent > 35


def test_each_example_is_answered(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#predict_iris")
    form = page.locator("#predict_iris form")
    for name, label in (("average setosa", "setosa"), ("average virginica", "virginica")):
        form.get_by_role("button", name=name).click()
        form.get_by_role("button", name="Send").click()
        form.locator("pre.code", has_text=f'"label": "{label}"').wait_for()
    form.locator("summary", has_text="Headers").click()
    form.locator("pre.code", has_text="x-request-id").wait_for()


def test_an_error_is_shown_as_it_came(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#predict_iris", permitted="400")
    form = page.locator("#predict_iris form")
    form.locator("textarea").fill('{"instances": [{"sepal_length": "wide"}]}')
    form.get_by_role("button", name="Send").click()
    form.locator(".reply-head .code", has_text="400").wait_for()
    form.locator("pre.code", has_text='"error"').wait_for()


def test_a_body_can_be_compressed(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#predict_iris")
    form = page.locator("#predict_iris form")
    form.get_by_label("Content-Encoding").select_option("gzip")
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_buffer))
    form.get_by_role("button", name="Send").click()
    form.locator("pre.code", has_text='"label"').wait_for()
    assert "instances" in json.loads(gzip.decompress(bodies[0]))


def test_schemas_unfold(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#predict_housing")
    description = page.locator("#predict_housing .description")
    for _ in range(4):  # what is inside is made when its fold opens
        description.evaluate(
            "(each) => each.querySelectorAll('details').forEach((d) => d.open = true)"
        )
        page.wait_for_timeout(100)
    description.get_by_text("mean number of rooms of a home").first.wait_for()


def test_images_can_be_sent_without_a_file_of_ones_own(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#predict_mnist")
    form = page.locator("#predict_mnist form")
    for media_type in ("image/png", "image/jpeg", "multipart/form-data"):
        form.get_by_role("tab", name=media_type).click()
        form.get_by_text("the example “median 0” is sent").wait_for()
        with page.expect_response("**/predict/mnist") as reply:
            form.get_by_role("button", name="Send").click()
        assert reply.value.json()["predictions"][0]["label"] == "0", media_type


def test_a_body_is_that_of_the_model_that_is_chosen(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#v2_model_infer")
    form = page.locator("#v2_model_infer form")
    body = form.locator("textarea")
    for model, size in (("xor", 2), ("iris", 4)):
        choose(form.get_by_label("model", exact=True), model)
        assert json.loads(body.input_value())["inputs"][0]["shape"] == [1, size]
    form.get_by_role("button", name="Send").click()
    form.locator(".reply-head .code", has_text="200").wait_for()
    page.goto(f"{service.url}/docs#picture")
    form = page.locator("#picture form")
    version = """() => [...document.querySelectorAll("#picture .param")]
      .find((each) => each.textContent.startsWith("version")).querySelector("input").value"""
    for model, newest in (("mnist", 2), ("housing", 1)):
        choose(form.get_by_label("model", exact=True), model)
        until(page, f"() => ({version})() === '{newest}'")
    form.get_by_role("button", name="Send").click()
    form.locator("img").wait_for()


def choose(field: Any, value: str) -> None:
    if field.evaluate("(field) => field.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)
        field.blur()


def test_only_the_head_of_a_reply_is_read_out(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs#models")
    form = page.locator("#models form")
    form.get_by_role("button", name="Send").click()
    live = form.locator("[aria-live]", has_text="200")
    live.wait_for()
    assert len(live.inner_text()) < 60
