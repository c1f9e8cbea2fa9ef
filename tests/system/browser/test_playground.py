"""The playground in a real browser, over a real service."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.classifiers import NUMBERS, ROWS, save_classifier
from tests.support.processes import Process, running
from tests.support.toys import save_sum, save_toy, toy_card
from tests.system.browser.conftest import ROOT
from tests.system.browser.drawing import SEVEN, draw, label_is, until

pytestmark = pytest.mark.browser

Visit = Callable[..., Any]
KEY = "a-key-that-is-long-enough"


def ink(page: Any, selector: str) -> float:
    """Return the mean grey of a canvas."""
    script = """(canvas) => {
      const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) sum += data[i];
      return sum / (data.length / 4);
    }"""
    return page.locator(selector).evaluate(script)


def sent_to(page: Any, path: str, act: Callable[[], Any]) -> Any:
    """Return the body of the request to a path that `act` causes."""
    with page.expect_request(lambda request: request.url.endswith(path)) as sent:
        act()
    return json.loads(sent.value.post_data)


def test_a_drawn_7_is_a_7(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist")
    label_is(page, "0")  # the first example, so that there is an answer to see
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Draw something, or choose an example.").wait_for()
    assert ink(page, ".seen-image canvas") == 0
    page.get_by_role("button", name="median 0").click()
    label_is(page, "0")
    draw(page, SEVEN)  # not over the example
    label_is(page, "7")
    assert ink(page, ".seen-image canvas") > 10
    assert page.locator(".bars li").count() == 10
    assert page.locator(".bars li.top .name").inner_text() == "7"
    page.locator(".times", has_text="computing").wait_for()
    times = page.locator(".times").inner_text()
    assert "in all" in times
    assert "in the queue" in times
    assert "to prepare the image" in times
    page.locator("#spoken", has_text="Answer: 7").wait_for()


def test_all_the_time_is_in_all(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist")
    label_is(page, "0")

    def delay(route: Any) -> None:
        page.wait_for_timeout(400)
        route.continue_()

    page.route("**/prepare/**", delay)
    page.mouse.click(*middle(page.locator(".drawing canvas")))
    page.locator(".times", has_text="to prepare").wait_for()
    in_all, *_, preparing = page.locator(".times b").all_inner_texts()
    assert milliseconds(in_all) > milliseconds(preparing) > 300


def milliseconds(text: str) -> float:
    value, unit = text.split()
    return float(value) * {"ms": 1, "s": 1000}[unit]


def middle(element: Any) -> tuple[float, float]:
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_answer_comes_while_one_draws(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist")
    box = page.locator(".drawing canvas").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.15 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.85 * box["height"], steps=20)
    label_is(page, "1")  # the button is still down
    page.mouse.up()


def test_a_finger_draws_too(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist", width="phone", has_touch=True, is_mobile=True)
    canvas = page.locator(".drawing canvas")
    assert canvas.evaluate("(canvas) => getComputedStyle(canvas).touchAction") == "none"
    touch = fingers(page, canvas)
    touch("touchStart", SEVEN[0])
    for (x, y), (u, v) in pairwise(SEVEN):
        for i in range(1, 9):
            touch("touchMove", (x + (u - x) * i / 8, y + (v - y) * i / 8))
    touch("touchEnd")
    label_is(page, "7")
    pill = page.locator(".pill")
    assert pill.inner_text().startswith("7, ")
    # Nothing is under it that could be wanted.
    assert pill.evaluate("(pill) => getComputedStyle(pill).pointerEvents") == "none"
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.locator(".about").bounding_box()
    assert last["y"] + last["height"] <= 780 - pill.evaluate("(pill) => pill.offsetHeight")


def fingers(page: Any, canvas: Any) -> Callable[..., None]:
    """Return what puts fingers on places of a canvas, from 0 to 1."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        placed = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
            for i, (x, y) in enumerate(points)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": placed})

    return touch


def test_a_second_finger_does_not_draw(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist", width="phone", has_touch=True, is_mobile=True)
    canvas = page.locator(".drawing canvas")
    touch = fingers(page, canvas)
    touch("touchStart", (0.3, 0.3))
    touch("touchMove", (0.3, 0.5))
    touch("touchStart", (0.3, 0.5), (0.9, 0.5))
    touch("touchMove", (0.3, 0.6), (0.9, 0.6))
    touch("touchMove", (0.3, 0.7), (0.9, 0.7))
    touch("touchEnd")
    assert "1 stroke." in canvas.get_attribute("aria-label")
    right_is_empty = """(canvas) => canvas.getContext("2d")
      .getImageData(canvas.width / 2, 0, canvas.width / 2, canvas.height)
      .data.every((each) => each === 255)"""
    assert canvas.evaluate(right_is_empty)


def test_undo_clear_examples_and_files(service: Process, visit: Visit, tmp_path: Path) -> None:
    page = visit(f"{service.url}/#mnist")
    assert page.get_by_role("button", name="Undo").is_disabled()
    draw(page, SEVEN)
    label_is(page, "7")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save image").click()
    image = tmp_path / "image.png"
    download.value.save_as(image)
    draw(page, [(0.1, 0.9), (0.9, 0.9)])
    page.get_by_role("button", name="Undo").click()
    label_is(page, "7")
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Draw something, or choose an example.").wait_for()
    example = page.get_by_role("button", name="median 4")
    example.focus()
    page.keyboard.press("Enter")
    label_is(page, "4")
    assert example.get_attribute("aria-pressed") == "true"
    assert "median 4" in page.locator(".drawing canvas").get_attribute("aria-label")
    page.locator("input[type=file]").set_input_files(image)
    label_is(page, "7")
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Draw something, or choose an example.").wait_for()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_text("This file is no image that the browser can read.").wait_for()


def test_a_dropped_file_is_answered(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist")
    transfer = page.evaluate_handle(
        """async () => {
          const canvas = document.createElement("canvas");
          canvas.width = canvas.height = 300;
          const context = canvas.getContext("2d");
          context.fillStyle = "white";
          context.fillRect(0, 0, 300, 300);
          context.fillStyle = "navy";
          context.fillRect(140, 40, 26, 220);
          const blob = await new Promise((resolve) => canvas.toBlob(resolve));
          const transfer = new DataTransfer();
          transfer.items.add(new File([blob], "one.png", {type: "image/png"}));
          return transfer;
        }"""
    )
    page.locator(".card.input .note").last.dispatch_event("drop", {"dataTransfer": transfer})
    label_is(page, "1")  # anywhere on the card
    stays = """(transfer) => ["dragover", "drop"].every((name) => !document.body.dispatchEvent(
      new DragEvent(name, {bubbles: true, cancelable: true, dataTransfer: transfer})))"""
    assert page.evaluate(stays, transfer)  # beside it, the browser does not open the file


def test_sliders_numbers_and_examples_change_the_answer(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris")
    label_is(page, "versicolor")
    page.get_by_role("button", name="average setosa").click()
    label_is(page, "setosa")
    assert page.get_by_label("petal length", exact=True).input_value() == "1.4"
    slider = page.get_by_role("slider", name="petal length, slider")
    slider.focus()
    body = sent_to(page, "/predict/iris", lambda: page.keyboard.press("End"))
    assert body["instances"][0]["petal_length"] == 6.7
    page.locator(".answer .headline strong", has_not_text="setosa").wait_for()
    field = page.get_by_label("petal width", exact=True)
    body = sent_to(page, "/predict/iris", lambda: field.fill("99"))
    assert body["instances"][0]["petal_width"] == 99
    assert page.locator(".outside:visible").count() == 1
    field.fill("")
    page.get_by_text("petal width: give a number.").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    page.get_by_role("button", name="defaults").click()
    label_is(page, "versicolor")
    assert page.locator(".outside:visible").count() == 0


def test_a_feature_of_whole_numbers_has_whole_steps(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#housing")
    label = page.get_by_role("slider", name="chas, slider")
    label.focus()
    body = sent_to(page, "/predict/housing", lambda: page.keyboard.press("ArrowRight"))
    assert body["instances"][0]["chas"] == 1


def test_a_price_comes_with_its_interval(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#housing")
    page.locator(".headline", has_text="20.77").wait_for()
    between = page.locator(".between").inner_text()
    assert between.startswith("between 17.13 and 25.19 \N{MULTIPLICATION SIGN} 1000 USD")
    assert "90 % of the true values" in between
    width = page.locator(".scale .span").evaluate("(span) => span.getBoundingClientRect().width")
    assert width > 20


def test_the_plane_shows_both_answers_and_moves_the_point(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#moons")
    page.locator(".plane[data-rows='2304']").wait_for()
    colours = page.locator(".plane canvas").evaluate(
        """(canvas) => {
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const at = (x, y) => [...data.slice(4 * (y * 48 + x), 4 * (y * 48 + x) + 3)].join(" ");
          return [at(10, 2), at(24, 45)];
        }"""
    )
    assert colours == ["224 122 47", "47 122 184"]  # of the upper and of the lower moon
    box = page.locator(".surface").bounding_box()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.05 * box["height"])
    label_is(page, "upper moon")
    assert float(page.get_by_label("y", exact=True).input_value()) > 1
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.95 * box["height"])
    label_is(page, "lower moon")


def test_what_is_copied_can_be_run(service: Process, visit: Visit) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    page = visit(f"{service.url}/#iris", permissions=permissions)
    page.get_by_role("button", name="average virginica").click()
    label_is(page, "virginica")
    for tab, command in (
        ("curl", ["bash", "-c"]),
        ("Python", [sys.executable, "-c"]),
        ("V2", ["bash", "-c"]),
    ):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("button", name=f"Copy the request as {tab}").click()
        page.locator(".copy[data-copied=true]").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        done = subprocess.run([*command, copied], capture_output=True, text=True, check=True)
        assert "virginica" in done.stdout or '"outputs"' in done.stdout, done.stdout
        assert "0.957114" in done.stdout


def test_an_image_is_copied_as_a_file_and_as_pixels(
    service: Process, visit: Visit, tmp_path: Path
) -> None:
    page = visit(f"{service.url}/#mnist")
    draw(page, SEVEN)
    label_is(page, "7")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save image").click()
    download.value.save_as(tmp_path / "image.png")
    code = page.locator(".call code")
    for tab, command in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
        page.get_by_role("tab", name=tab).click()
        done = subprocess.run(
            [*command, code.inner_text()], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert '"label":"7"' in done.stdout or "'label': '7'" in done.stdout, done.stdout
    page.get_by_role("tab", name="V2").click()
    done = subprocess.run(
        ["bash", "-c", code.inner_text()], capture_output=True, text=True, check=True
    )
    outputs = json.loads(done.stdout)["outputs"][0]["data"]
    assert max(range(10), key=outputs.__getitem__) == 7


def test_copying_works_where_the_clipboard_is_refused(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris")
    label_is(page, "versicolor")
    page.evaluate("() => void (navigator.clipboard.writeText = () => Promise.reject(new Error()))")
    page.get_by_role("button", name="Copy the request as curl").click()
    page.locator(".copy[data-copied=true]").wait_for()
    page.evaluate(
        """() => {
          const field = document.createElement("textarea");
          field.id = "to";
          document.body.append(field);
        }"""
    )
    page.locator("#to").focus()
    page.keyboard.press("Control+V")
    assert page.locator("#to").input_value().startswith("curl 'http://")


def test_weights_stand_beside_the_versions_and_the_snippet_names_one(visit: Visit) -> None:
    with running(models_dir=ROOT / "models", split="mnist=1:90,2:10") as service:
        page = visit(f"{service.url}/#mnist")
        version = page.get_by_label("Version")
        version.wait_for()
        options = version.locator("option").all_inner_texts()
        assert options == ["1, weight 90", "2, the default, weight 10"]
        page.locator(".call code").filter(has_text="version=2").wait_for()


def test_the_version_can_be_chosen(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#mnist")
    version = page.get_by_label("Version")
    version.wait_for()
    assert version.locator("option").all_inner_texts() == ["1", "2, the default"]
    page.get_by_role("button", name="median 3").click()
    label_is(page, "3")
    body = sent_to(page, "/predict/mnist", lambda: version.select_option("1"))
    assert body["version"] == 1
    label_is(page, "3")  # the example is kept
    assert "version=1" in page.locator(".call code").inner_text()


def test_a_model_appears_and_what_was_typed_stays(models: Path, visit: Visit) -> None:
    with running(models_dir=models) as service:
        page = visit(f"{service.url}/#iris")
        page.get_by_label("sepal width", exact=True).fill("3.33")
        save_toy(models.parent / "later", card=toy_card())
        shutil.move(models.parent / "later/toy", models / "toy")
        page.locator("nav a", has_text="toy").wait_for(timeout=15_000)
        assert page.get_by_label("sepal width", exact=True).input_value() == "3.33"
        assert page.title() == "iris · torchlit"
        page.locator("nav a", has_text="toy").click()
        page.locator(".answer .bars").wait_for()
        page.get_by_label(toy_card().features[0].name, exact=True).fill("2.5")
        save_toy(models.parent / "later", 2, card=toy_card())
        shutil.move(models.parent / "later/toy/2", models / "toy/2")
        page.get_by_label("Version").wait_for(timeout=15_000)
        until(page, "() => document.querySelector('.versions select')?.value === '2'")
        assert page.get_by_label(toy_card().features[0].name, exact=True).input_value() == "2.5"
        shutil.rmtree(models / "toy")
        page.get_by_role("heading", name="No model toy here").wait_for(timeout=15_000)
        assert "toy" not in page.locator("nav").inner_text()


def test_a_model_without_a_card_and_one_for_v2_only(models: Path, visit: Visit) -> None:
    save_toy(models, card=None)
    save_sum(models)  # two inputs of two values
    with running(models_dir=models) as service:
        page = visit(f"{service.url}/#toy")
        field = page.get_by_label("One row of numbers, as JSON")
        page.locator(".answer pre").wait_for()
        body = sent_to(page, "/predict/toy", lambda: field.fill("[1, 2, 3, 4]"))
        assert body["instances"] == [[1, 2, 3, 4]]
        field.fill("[1, 2")
        page.get_by_text("Not JSON").wait_for()
        page.goto(f"{service.url}/#sum")
        page.get_by_text("Call it over /v2").wait_for()


def test_a_classifier_without_a_card_has_bars(models: Path, visit: Visit) -> None:
    save_classifier(models, NUMBERS, is_zipped=True)
    save_classifier(models, are_margins=True, name="margins")
    with running(models_dir=models) as service:
        page = visit(f"{service.url}/#kinds")
        field = page.get_by_label("One row of numbers, as JSON")
        page.locator(".answer .bars").wait_for()
        sent_to(page, "/predict/kinds", lambda: field.fill(str(ROWS[1].tolist())))
        page.locator(".answer .headline strong", has_text="-1").wait_for()
        assert page.locator(".answer .name").all_inner_texts() == ["7", "-1", "3"]
        assert page.locator(".answer .top .name").inner_text() == "-1"
        page.goto(f"{service.url}/#margins")
        page.locator(".answer pre", has_text="scores").wait_for()


def test_a_model_that_failed_says_why(models: Path, visit: Visit) -> None:
    (models / "broken/1").mkdir(parents=True)
    (models / "broken/1/model.onnx").write_bytes(b"no model")
    with running(models_dir=models) as service:
        page = visit(f"{service.url}/#broken", permitted="503")
        page.get_by_text("Not ready", exact=True).wait_for()
        page.locator(".failed", has_text="broken/1").wait_for()
        page.locator("#status.bad", has_text="not ready").wait_for()
        page.goto(f"{service.url}/#service/")
        page.locator(".caveats li", has_text="broken").wait_for()


def test_a_key_is_required_and_kept_in_the_tab(models: Path, visit: Visit) -> None:
    with running(models_dir=models, api_keys=KEY, protect_metrics=True) as service:
        page = visit(f"{service.url}/#iris", permitted="401")
        field = page.get_by_label("API key")
        field.wait_for()
        field.fill("some-other-key-that-is-long")
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("The service does not know this key.").wait_for()
        field.fill(KEY)
        page.keyboard.press("Enter")
        label_is(page, "versicolor")
        assert field.is_hidden()
        assert KEY not in page.content()
        assert "$TORCHLIT_KEY" in page.locator(".call code").inner_text()
        environment = os.environ | {"TORCHLIT_KEY": KEY}
        for tab, command in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
            page.get_by_role("tab", name=tab).click()
            code = page.locator(".call code").inner_text()
            done = subprocess.run(
                [*command, code], env=environment, capture_output=True, text=True, check=True
            )
            assert "versicolor" in done.stdout
        page.get_by_text("How it was trained").click()
        until(page, "() => document.querySelector('.plots img')?.naturalWidth > 0")
        assert page.evaluate("localStorage.length") == 0
        page.goto(f"{service.url}/docs")
        page.locator("details.operation").first.wait_for()
        page.get_by_role("button", name="Forget key").click()
        page.get_by_role("heading", name="API").wait_for()
        page.get_by_text("The operations show once a key is given above.").wait_for()
        page.reload()
        field.wait_for()


def test_the_skip_link_leads_to_the_model(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris")
    label_is(page, "versicolor")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith("#iris")
    page.get_by_role("heading", name="iris").wait_for()


def test_a_number_says_its_unit_and_what_it_is(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris")
    described = page.get_by_label("sepal length", exact=True).evaluate(
        """(field) => field.getAttribute("aria-describedby").split(" ")
          .map((id) => document.getElementById(id).textContent).join("; ")"""
    )
    assert described == "cm; 4.4 \N{EN DASH} 7.7 length of a sepal, an outer leaf of the flower"


def test_what_is_said_of_the_file_is_with_its_training(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#xor")
    label_is(page, "1")
    about = page.locator(".about")
    assert "measured on the four rows it was trained on" in about.inner_text()
    assert "never saw" not in about.inner_text()
    assert "SHA-256" not in about.inner_text()
    page.get_by_text("How it was trained").click()
    assert "SHA-256" in about.inner_text()


def test_bars_have_the_colours_of_the_plane(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#moons")
    page.locator(".answer .headline").wait_for()
    colours = """(all) => all.map((each) => getComputedStyle(each).backgroundColor)"""
    assert page.locator(".bars .fill").evaluate_all(colours) == page.locator(
        ".swatch"
    ).evaluate_all(colours)


def test_the_state_of_the_service_lives(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#service/")
    page.locator("tbody tr").first.wait_for()
    rows = page.locator("tbody tr").all_inner_texts()
    assert len(rows) == 6
    assert all("ready" in row and "CPUExecutionProvider" in row for row in rows)
    with httpx.Client(base_url=service.url) as client:
        for _ in range(5):
            for _ in range(40):
                client.post("/predict/xor", json={"instances": [[0, 1]]})
            page.wait_for_timeout(600)
    tile = page.locator(".tiles .plot")
    until(page, "() => document.querySelectorAll('.tiles b')[2].textContent.endsWith('ms')")
    assert float(tile.nth(0).locator("b").inner_text()) > 1
    assert page.locator(".tiles .line").first.get_attribute("d").count("L") >= 1
    page.locator("tbody a", has_text="xor").focus()
    for _ in range(2):
        with page.expect_response("**/metrics"):
            pass
    page.wait_for_timeout(100)
    assert page.evaluate("document.activeElement.textContent") == "xor"


def test_the_theme_can_be_chosen_and_is_kept(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    button = page.get_by_role("button", name="Theme: auto")
    button.click()
    page.get_by_role("button", name="Theme: light").click()
    page.get_by_role("button", name="Theme: dark").wait_for()
    assert page.evaluate(background) != light
    page.reload()
    page.get_by_role("button", name="Theme: dark").wait_for()
    assert page.evaluate(background) != light


def test_everything_is_reached_by_keyboard(service: Process, visit: Visit) -> None:
    page = visit(f"{service.url}/#iris")
    label_is(page, "versicolor")
    focused = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        element, outline = page.evaluate(
            """() => {
              const element = document.activeElement;
              const name = element.getAttribute("aria-label") ?? element.innerText ?? element.id;
              return [name.split("\\n")[0] || element.id, getComputedStyle(element).outlineStyle];
            }"""
        )
        if element != "" and page.evaluate("document.activeElement !== document.body"):
            focused.add(element)
            assert outline != "none", element
    for name in (
        *("torchlit", "API", "Theme: auto", "iris", "mnist", "Service", "average setosa"),
        *("petal width, slider", "curl", "Copy the request as curl", "How it was trained"),
    ):
        assert name in focused, name
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Python").get_attribute("aria-selected") == "true"
