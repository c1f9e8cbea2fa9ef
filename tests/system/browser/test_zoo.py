"""The playground over models as others may bring them: names, shapes, types and numbers of them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import Process
from tests.system.browser.drawing import draw, label_is, until

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
LABEL = "L" * 150
ANSWER = "() => !!document.querySelector('.answer')?.innerText.includes('%s')"
COMMANDS = {"curl": ["bash"], "Python": [sys.executable, "-"], "V2": ["bash"]}


def copied(page: Any, tab: str) -> str:
    """Return what the button copies under a tab of the code."""
    page.get_by_role("tab", name=tab).click()
    page.get_by_role("button", name=f"Copy the request as {tab}").click()
    page.locator(".copy[data-copied=true]").wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


def answer_to(page: Any, tab: str, folder: Path) -> str:
    """Run what the button copies; return what it prints."""
    code = copied(page, tab)
    done = subprocess.run(
        COMMANDS[tab], input=code, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def visit_and_copy(visit: Visit, url: str, **options: Any) -> Any:
    return visit(url, permissions=["clipboard-read", "clipboard-write"], **options)


def test_columns_are_in_the_order_of_the_card_in_every_request(
    zoo: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#numbered")
    share = page.locator(".bars .share").first
    share.wait_for()
    shown = float(share.inner_text().removesuffix("%"))
    for tab in ("curl", "Python"):
        reply = answer_to(page, tab, tmp_path).replace("'", '"')
        of_reply = json.loads(reply[reply.index("{") :])
        probabilities = of_reply.get("predictions", [of_reply])[0]["probabilities"]
        assert 100 * probabilities[LABEL] == pytest.approx(shown, abs=0.06)
    outputs = json.loads(answer_to(page, "V2", tmp_path))["outputs"][0]["data"]
    assert 100 * outputs[0] == pytest.approx(shown, abs=0.06)


def test_features_may_be_called_as_what_every_object_has(zoo: Process, visit: Visit) -> None:
    page = visit(f"{zoo.url}/#proto")
    label_is(page, LABEL)
    names = ("  proto  ", "constructor", "toString")
    values = [page.get_by_label(name, exact=True).input_value() for name in names]
    assert values == ["1", "2", "3"]


def test_examples_are_shown_saved_and_sent_pixel_by_pixel(
    zoo: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#rgb")
    label_is(page, "red")  # the first view has an answer
    page.get_by_role("button", name="sky").click()
    label_is(page, "blue")
    colour = page.locator(".drawing canvas").evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(30, 30, 1, 1).data]"
    )
    assert colour == [0, 128, 255, 255]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save image").click()
    download.value.save_as(tmp_path / "image.png")
    expected = httpx.get(f"{zoo.url}/models/rgb").json()["versions"][0]["card"]["examples"][1]
    for tab in ("curl", "Python"):
        reply = answer_to(page, tab, tmp_path).replace("'", '"')
        of_reply = json.loads(reply[reply.index("{") :])
        prediction = of_reply.get("predictions", [of_reply])[0]
        assert prediction["probability"] == pytest.approx(max(expected["output"]), abs=1e-5)
    outputs = json.loads(answer_to(page, "V2", tmp_path))["outputs"][0]["data"]
    assert outputs == pytest.approx(expected["output"], abs=1e-5)
    draw(page, [(0.2, 0.5), (0.8, 0.5)])
    assert "prepare" not in copied(page, "curl")


def test_a_long_request_can_be_copied_and_run(zoo: Process, visit: Visit, tmp_path: Path) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#large")
    label_is(page, "red")
    outputs = json.loads(answer_to(page, "V2", tmp_path))["outputs"][0]["data"]
    assert outputs[0] > outputs[1]
    assert len(page.locator(".call code").inner_text()) < 30_000


def test_what_json_cannot_say_is_said(zoo: Process, visit: Visit) -> None:
    page = visit(f"{zoo.url}/#halves")
    page.locator(".answer pre").wait_for()
    page.get_by_role("tab", name="V2").click()
    page.get_by_text("V2 takes FP16 as binary data only").wait_for()


def test_long_integers_are_sent_and_shown_as_they_are(
    zoo: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#integers")
    field = page.get_by_label("One row of numbers, as JSON")
    field.fill("[9007199254740993, 1, 2]")
    page.locator(".answer pre", has_text="9007199254740993").wait_for()
    for tab in COMMANDS:
        assert "9007199254740993" in answer_to(page, tab, tmp_path)
    page.goto(f"{zoo.url}/docs#predict_integers")
    form = page.locator("#predict_integers form")
    form.locator("textarea").fill('{"instances": [[9007199254740993, 1, 2]]}')
    form.get_by_role("button", name="Send").click()
    form.locator("pre.code", has_text="9007199254740993").wait_for()


def test_a_row_may_be_one_number(zoo: Process, visit: Visit, tmp_path: Path) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#numbers")
    page.locator(".answer pre").wait_for()
    assert page.get_by_label("One row of numbers, as JSON").input_value() == "[0]"
    for tab in COMMANDS:
        answer_to(page, tab, tmp_path)


def test_each_of_several_values_has_its_name(zoo: Process, visit: Visit) -> None:
    page = visit(f"{zoo.url}/#bounded")
    page.locator(".answer h3").first.wait_for()
    names = page.locator(".answer h3").all_inner_texts()
    assert names == ["twice 0", "twice 1", "twice 2"]


def test_the_current_one_of_many_models_is_in_sight(zoo: Process, visit: Visit) -> None:
    page = visit(f"{zoo.url}/#z7", viewport={"width": 1280, "height": 520})
    current = page.locator("nav a[aria-current]")
    current.wait_for()
    for link in (current, page.locator("nav .service")):
        box = link.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + min(box["height"], 60) <= 520
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_long_names_do_not_overflow(zoo: Process, visit: Visit, width: str) -> None:
    page = visit(f"{zoo.url}/#long-{'y' * 50}", width=width)
    label_is(page, LABEL)
    until(page, "() => document.querySelector('.plane[data-rows]')")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_each_column_has_a_field_and_is_in_every_request(
    zoo: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#columns")
    page.get_by_label("age", exact=True).fill("1.5")
    page.get_by_label("rooms", exact=True).fill("2")
    page.get_by_label("city", exact=True).fill("rome")
    page.get_by_label("paid", exact=True).check()
    until(page, ANSWER % "113.5")
    for tab in ("curl", "Python", "V2"):
        assert "113.5" in answer_to(page, tab, tmp_path)
    page.get_by_label("age", exact=True).fill("")
    until(page, ANSWER % "age: give a number.")


def test_a_card_of_texts_and_booleans_has_fields_and_examples(
    zoo: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#houses")
    until(page, ANSWER % "43.5")  # the defaults: 30.5 + 3, and 10 in Rome
    page.get_by_role("button", name="row 1").click()
    until(page, ANSWER % "132.5")
    assert page.get_by_label("city", exact=True).input_value() == "Łódź"
    assert page.get_by_label("paid", exact=True).is_checked()
    offered = page.locator("datalist option").evaluate_all("(all) => all.map((one) => one.value)")
    assert offered == ["rome", "Łódź"]
    page.get_by_label("city", exact=True).fill("rome")
    page.get_by_label("rooms, slider").fill("3")
    until(page, ANSWER % "143.5")
    for tab in COMMANDS:
        assert "143.5" in answer_to(page, tab, tmp_path)
    about = page.locator(".about").inner_text()
    assert "How good it is" not in about
    assert "Licence" not in about
    page.goto(f"{zoo.url}/docs#predict_houses")
    form = page.locator("#predict_houses form")
    form.get_by_role("button", name="Send").click()
    form.locator("pre.code", has_text="132.5").wait_for()


def test_what_an_example_lacks_is_sent_as_missing(
    zoo: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit_and_copy(visit, f"{zoo.url}/#sizes")
    page.get_by_role("button", name="row 1").click()
    until(page, ANSWER % "8")  # a missing age is 7
    assert page.get_by_label("age", exact=True).input_value() == ""
    assert page.get_by_role("button", name="row 1").get_attribute("aria-pressed") == "true"
    for tab in COMMANDS:
        assert "8.0" in answer_to(page, tab, tmp_path)
    page.get_by_label("size", exact=True).fill("")
    until(page, ANSWER % "size: give a number.")


def test_a_row_of_strings_begins_with_empty_ones(zoo: Process, visit: Visit) -> None:
    page = visit(f"{zoo.url}/#words")
    field = page.get_by_label("One row, as JSON")
    assert field.input_value() == '["",""]'
    field.fill('["a]", "[b"]')
    until(page, ANSWER % "a]")
