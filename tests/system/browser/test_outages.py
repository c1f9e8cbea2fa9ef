"""What the pages show while the service, the net or the browser does not do its part."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process, running
from tests.support.toys import save_toy
from tests.system.browser.drawing import SEVEN, label_is, until

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
KEY = "a-key-that-is-long-enough"
REFUSED = """
for (const name of ["sessionStorage", "localStorage"]) {
  Object.defineProperty(window, name, {get() { throw new DOMException("no", "SecurityError"); }});
}
"""


class Held:
    """Holds requests to a path back until they are let go."""

    def __init__(self, page: Any, path: str, most: int = 1) -> None:
        self.routes: list[Any] = []
        page.route(path, self._hold, times=most)

    def _hold(self, route: Any) -> None:
        self.routes.append(route)

    def let_go(self) -> None:
        for route in self.routes:
            route.continue_()


def wait_for(page: Any, held: Held) -> None:
    for _ in range(100):
        if held.routes:
            return
        page.wait_for_timeout(50)
    raise AssertionError("no request came")


def test_the_service_may_hang_and_go_and_come_back(models: Path, visit: Visit) -> None:
    with running(models_dir=models) as service:
        page = visit(f"{service.url}/#iris", permitted="Failed to load resource")
        label_is(page, "versicolor")
        group = os.getpgid(service.process.pid)
        os.killpg(group, signal.SIGSTOP)
        page.locator("#status.bad", has_text="no answer").wait_for(timeout=15_000)
        os.killpg(group, signal.SIGCONT)
        page.locator("#status.good").wait_for(timeout=15_000)
        port = service.url.rsplit(":", 1)[1]
        service.stop()
        page.get_by_role("button", name="average setosa").click()
        page.locator(".answer .error", has_text="The service does not answer.").wait_for()
        page.locator("#status.bad", has_text="no answer").wait_for(timeout=15_000)
        with running(models_dir=models, port=port):
            page.locator("#status.good").wait_for(timeout=15_000)
            label_is(page, "setosa")  # nobody has touched anything


def test_a_full_queue_is_tried_again(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/health/live", permitted="status of")
    page.route(
        "**/predict/iris",
        lambda route: route.fulfill(
            status=503, headers={"retry-after": "1"}, json={"error": "The queue is full."}
        ),
        times=1,
    )
    page.goto(f"{service.url}/#iris")
    page.locator(".answer .error", has_text="The queue is full.").wait_for()
    label_is(page, "versicolor")


def test_a_call_that_hangs_makes_way(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris")
    label_is(page, "versicolor")
    held = Held(page, "**/predict/iris")
    page.get_by_role("button", name="average setosa").click()
    wait_for(page, held)
    page.locator(".answer[aria-busy=true]").wait_for()
    page.get_by_role("button", name="average virginica").click()
    label_is(page, "virginica")
    assert page.locator(".answer[aria-busy]").count() == 0


def test_an_earlier_request_does_not_come_late(service: Process, visit: Visit) -> None:
    """Neither the first answer, nor one of a model that is no longer shown."""
    page = visit(f"{service.url}/health/live", permitted="status of")
    held = Held(page, "**/predict/iris")
    page.goto(f"{service.url}/#iris")
    wait_for(page, held)  # the first answer
    page.get_by_role("button", name="average setosa").click()
    page.wait_for_timeout(100)
    held.let_go()
    label_is(page, "setosa")
    page.locator("nav a", has_text="housing").evaluate("(link) => window.elsewhere = link")
    page.evaluate(
        """() => {
          const find = (text) => [...document.querySelectorAll(".chip")]
            .find((each) => each.textContent === text);
          find("average virginica").click();
          elsewhere.click(); // before the 40 ms are over
        }"""
    )
    page.locator(".headline", has_text="20.77").wait_for()
    page.go_back()
    label_is(page, "virginica")
    late = Held(page, "**/predict/iris")
    page.get_by_role("button", name="average setosa").click()
    wait_for(page, late)
    page.locator("nav a", has_text="housing").click()
    page.locator("#spoken", has_text="20.77").or_(page.locator(".headline")).first.wait_for()
    with page.expect_response("**/predict/iris"):
        late.let_go()
    page.wait_for_timeout(900)  # what is spoken comes after 700 ms
    assert "setosa" not in page.locator("#spoken").inner_text()
    assert "setosa" not in page.locator(".pill").text_content()


def test_the_version_that_was_chosen_last_is_shown(models: Path, visit: Visit) -> None:
    save_toy(models, 1, card=None)
    save_toy(models, 2, card=None, scale=2)
    with running(models_dir=models) as service:
        page = visit(f"{service.url}/#moons")
        page.locator(".plane[data-rows]").wait_for()
        held = Held(page, "**/v2/models/toy/versions/2")
        page.locator("nav a", has_text="toy").click()
        wait_for(page, held)
        page.get_by_label("Version").select_option("1")
        page.locator(".answer pre").wait_for()
        with page.expect_response("**/v2/models/toy/versions/2"):
            held.let_go()
        page.wait_for_timeout(200)
        assert '"version": 1' in page.locator(".call code").inner_text()


def test_a_fault_of_the_page_is_not_blamed_on_the_service(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/docs", permitted="Cannot read")
    page.route("**/predict/iris", lambda route: route.fulfill(json={}))
    page.goto(f"{service.url}/#iris")
    page.locator(".answer .error", has_text="This page failed:").wait_for()


def test_requests_can_be_copied_before_any_answer(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/health/live", permitted="Failed to load resource")
    page.route("**/predict/*", lambda route: route.abort())
    page.goto(f"{service.url}/#iris")
    page.locator(".answer .error").wait_for()
    assert "sepal_length" in page.locator(".call code").inner_text()
    page.goto(f"{service.url}/#mnist")
    page.locator(".answer .error").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("tab", name="V2").click()
    assert len(page.locator(".call code").inner_text()) > 2000  # the first example's pixels


def test_health_may_be_kept_by_a_proxy(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/health/live", permitted="status of")
    page.route("**/health/ready", lambda route: route.fulfill(body="<p>A portal</p>"))
    page.goto(f"{service.url}/#iris")
    label_is(page, "versicolor")
    page.locator("#status", has_text="5 models").wait_for()
    assert "ready" not in page.locator("#status").inner_text()


def test_a_model_may_change_under_a_stroke(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist")
    label_is(page, "0")
    box = page.locator(".drawing canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=8)

    def change(route: Any) -> None:
        reply = route.fetch()
        listed = reply.json()
        next(each for each in listed["models"] if each["model"] == "mnist")["default_version"] = 1
        route.fulfill(response=reply, json=listed)

    page.route("**/models", change)
    with page.expect_response("**/models"):
        pass
    page.wait_for_timeout(100)
    page.mouse.move(*places[2], steps=8)
    page.mouse.up()
    until(page, "() => document.querySelector('.versions select').value === '1'")
    label_is(page, "7")


def test_storage_may_be_refused(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris", script=REFUSED)
    label_is(page, "versicolor")


def test_the_form_for_a_key_stays_while_metrics_are_open(models: Path, visit: Visit) -> None:
    with running(models_dir=models, api_keys=KEY) as service:
        page = visit(f"{service.url}/health/live", permitted="status of")
        with page.expect_response("**/metrics") as metrics:
            page.goto(f"{service.url}/#iris")
        assert metrics.value.status == 200
        page.wait_for_timeout(200)
        field = page.get_by_label("API key")
        assert field.is_visible()
        field.fill("schlüssel")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("This is no key").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        field.fill(KEY)
        page.keyboard.press("Enter")
        label_is(page, "versicolor")
        assert field.is_hidden()


@pytest.mark.parametrize("fragment", ["%E0%A4", "nope"])
def test_an_address_of_no_model_says_so(service: Process, visit: Visit, fragment: str) -> None:
    page = visit(f"{service.url}/#{fragment}")
    page.get_by_role("heading", name=f"No model {fragment} here").wait_for()
    page.locator("nav a", has_text="iris").click()
    label_is(page, "versicolor")
    page.goto(f"{service.url}/docs#{fragment}")
    page.locator("details.operation").first.wait_for()
