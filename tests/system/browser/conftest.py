"""A real browser and a real service process; runs where `make test-browser` put Playwright."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Process, running
from tests.system.browser.zoo import fill_zoo

ROOT = Path(__file__).parents[3]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 780}
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
# Only installed fonts are used: where Inter is installed, it stands for the system's.
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include>
<match target="pattern"><test name="family"><string>system-ui</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
<match target="pattern"><test name="family"><string>sans-serif</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
</fontconfig>
"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    fonts = tmp_path_factory.mktemp("fonts") / "fonts.conf"
    fonts.write_text(FONTS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, env={**os.environ, "FONTCONFIG_FILE": str(fonts)}
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def service() -> Iterator[Process]:
    """The service with the committed models."""
    with running(models_dir=ROOT / "models") as process:
        yield process


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models that a test may change."""
    folder = tmp_path / "models"
    for name in ("iris", "moons"):
        shutil.copytree(ROOT / "models" / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service with models as others may bring them."""
    folder = tmp_path_factory.mktemp("zoo")
    fill_zoo(folder)
    with running(models_dir=folder) as process:
        yield process


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; fail at the end if it, or any other, did what no page may do."""
    pages: list[Any] = []
    problems: list[str] = []
    contexts = []

    def open_page(
        url: str,
        *,
        width: str = "desktop",
        permitted: str = "",
        script: str = "",
        **options: Any,
    ) -> Any:
        """Permit messages and errors with some words; run a script before those of the page."""
        options = {"viewport": PHONE if width == "phone" else DESKTOP} | options
        context = browser.new_context(**options)
        contexts.append(context)
        context.add_init_script(WATCH_POLICY + script)
        page = context.new_page()
        pages.append(page)
        origin = "/".join(url.split("/")[:3]) + "/"

        def on_request(request: Any) -> None:
            if not request.url.startswith((origin, "blob:", "data:")):
                problems.append(f"requested {request.url}")

        # A page may send one more request after the service that a test ran has ended.
        allowed = ["ERR_CONNECTION_REFUSED", *([permitted] if permitted else [])]

        def note(text: str) -> None:
            if not any(each in text for each in allowed):
                problems.append(text)

        def on_console(message: Any) -> None:
            if message.type in ("error", "warning"):
                note(f"console: {message.text}")

        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: note(f"error: {error}"))
        page.goto(url)
        return page

    yield open_page
    for page in pages:
        if not page.is_closed():
            problems.extend(page.evaluate("window.violations"))
    for context in contexts:
        context.close()
    assert problems == []
