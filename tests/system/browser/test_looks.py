"""What the pages show, weigh and say to a screen reader; screenshots go to SHOTS."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import Process, running
from tests.system.browser.drawing import SEVEN, draw, label_is, until

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
ROOT = Path(__file__).parents[3]
AXE = ROOT / ".venv/browser/packages/axe_playwright_python/axe.min.js"
SHOTS = Path(os.environ.get("SHOTS", ROOT / ".cache/screenshots"))
VIEWS = {
    "image": "#mnist",
    "tabular": "#iris",
    "price": "#housing",
    "plane": "#moons",
    "about": "#iris",
    "state": "#service/",
    "docs": "docs",
    "operation": "docs#predict_iris",
}


def settle(page: Any, view: str, service: Process) -> None:
    """Bring a view into the state of its screenshot."""
    if view == "image":
        draw(page, SEVEN)
        label_is(page, "7")
    elif view == "state":
        page.locator("tbody tr").first.wait_for()
        is_measured = "() => document.querySelectorAll('.tiles b')[2].textContent.endsWith('ms')"
        with httpx.Client(base_url=service.url) as client:
            for i in range(3):  # so many scrapes make a line
                for _ in range(20 + 15 * (i % 3)):
                    client.post("/predict/xor", json={"instances": [[0, 1]]})
                with page.expect_response("**/metrics"):
                    pass
        until(page, is_measured)
    elif view == "about":
        page.get_by_text("How it was trained").click()
        until(page, "() => [...document.images].filter((each) => each.naturalWidth).length === 2")
    elif view == "plane":
        page.locator(".plane[data-rows]").wait_for()
    elif view.startswith(("docs", "operation")):
        page.locator("details.operation").first.wait_for()
        if view == "operation":
            page.locator("#predict_iris .primary").click()
            page.locator(".reply-head").wait_for()
    else:
        page.locator(".answer .headline").first.wait_for()


@pytest.mark.parametrize("width", ["desktop", "phone"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_and_nothing_overflows(
    service: Process, visit: Visit, view: str, width: str
) -> None:
    # bypass_csp lets the test put axe into the page; test_page.py holds the policy itself.
    page = visit(
        f"{service.url}/{VIEWS[view]}",
        width=width,
        bypass_csp=True,
        device_scale_factor=2 if width == "phone" else 1,
    )
    page.add_script_tag(path=AXE)
    settle(page, view, service)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(300)  # transitions end
        inspect(page, f"{view}-{theme}-{width}", full_page=view != "operation")


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((name, "phone") for name in ("bounded", "rgb", "integers", f"long-{'y' * 50}", "sizes")),
        *(("houses", width) for width in ("phone", "desktop")),
    ],
)
def test_other_models_fit_too(zoo: Process, visit: Visit, name: str, width: str) -> None:
    page = visit(f"{zoo.url}/#{name}", width=width, bypass_csp=True)
    page.add_script_tag(path=AXE)
    page.locator(".answer .headline, .answer pre").first.wait_for()
    page.wait_for_timeout(300)
    inspect(page, f"zoo-{name[:8]}-light-{width}")


def test_colours_that_are_forced_leave_the_state_visible(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris", forced_colors="active")
    page.locator(".answer .headline").wait_for()
    style = "(element, name) => getComputedStyle(element)[name]"
    for selector in ("nav a[aria-current]", ".links a[aria-current]", ".chip[aria-pressed=true]"):
        assert page.locator(selector).evaluate(style, "outlineStyle") == "solid", selector
    assert page.locator(".track").first.evaluate(style, "borderTopStyle") == "solid"
    fills = page.locator(".fill")
    colours = {fills.nth(i).evaluate(style, "backgroundColor") for i in range(fills.count())}
    assert len(colours) == 2  # the top one is another
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "tabular-forced-desktop.png")


def test_the_form_for_a_key_too(visit: Visit) -> None:
    with running(models_dir=ROOT / "models", api_keys="a-key-that-is-long-enough") as locked:
        page = visit(f"{locked.url}/", bypass_csp=True, permitted="401")
        page.get_by_label("API key").wait_for()
        page.add_script_tag(path=AXE)
        inspect(page, "locked-light-desktop")


def inspect(page: Any, name: str, *, full_page: bool = True) -> None:
    """Take a screenshot of a page; fail if it overflows or axe finds anything."""
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    SHOTS.mkdir(parents=True, exist_ok=True)
    if full_page:
        page.evaluate("scrollTo(0, 0)")  # what sticks to the top is there
    page.screenshot(path=SHOTS / f"{name}.png", full_page=full_page)
    found = page.evaluate(
        """async () => {
          const {violations} = await axe.run();
          return violations.map(({id, help, nodes}) =>
            `${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
        }"""
    )
    assert found == []


@pytest.mark.parametrize("path", ["", "#moons", "docs"])
def test_a_first_load_is_light_and_quick(service: Process, visit: Visit, path: str) -> None:
    page = visit(f"{service.url}/health/live", permitted="404")  # its icon
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    weights: list[float] = []
    session.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
    times_ms = []
    for _ in range(3):  # the quickest counts: the machine may have other work
        page.goto(f"{service.url}/health/live")
        weights.clear()
        page.goto(f"{service.url}/{path}")
        page.locator(".answer .headline, details.operation").first.wait_for()
        times_ms.append(page.evaluate("performance.now()"))
        page.wait_for_timeout(300)
    weight_kb = sum(weights) / 1000
    print(f"\n/{path}: {weight_kb:.1f} kB in {len(weights)} replies, {min(times_ms):.0f} ms")
    assert weight_kb < 100
    assert min(times_ms) < 1000
