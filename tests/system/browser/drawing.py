"""What a hand does on the canvas of the playground, and what it waits for."""

from typing import Any

SEVEN = [(0.27, 0.24), (0.73, 0.23), (0.44, 0.82)]


def draw(page: Any, points: list[tuple[float, float]]) -> None:
    """Draw a line on the canvas, through points of 0 to 1."""
    box = page.locator(".drawing canvas").bounding_box()
    placed = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*placed[0])
    page.mouse.down()
    for point in placed[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()


def label_is(page: Any, label: str) -> None:
    """Wait until the answer's headline is this."""
    wanted = page.locator(".answer .headline strong").get_by_text(label, exact=True)
    wanted.wait_for(timeout=5000)


def until(page: Any, script: str) -> None:
    """Wait until a function of JavaScript gives true; Playwright's own would need eval."""
    for _ in range(150):
        if page.evaluate(script):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {script}")
