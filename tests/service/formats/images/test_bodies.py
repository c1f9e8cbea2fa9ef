"""A body that is an image, or a form of them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats.images.bodies import read_form, read_image
from tests.support.bodies import FIELDS, limits
from tests.support.drawings import png, three_lines
from tests.support.images import read
from tests.support.toys import save_seen

DRAWN = png(255 * (1 - three_lines(np.random.default_rng(1))))
PIXELS = read(DRAWN)
SMALL = png(PIXELS)  # as the model takes it
DARK = np.pad(np.full((10, 10), 200), 9)
FORM = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of images of 28 x 28 pixels."""
    folder = tmp_path_factory.mktemp("seen")
    save_seen(folder)
    return Model.open(folder / "seen/1/model.onnx")


def part(content: bytes, name: bytes = b"f", more: bytes = b"") -> bytes:
    """Return a part of a form: a file of that name, with more lines in its head."""
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="%b"\r\n' % name
    return head + more + b"\r\n" + content + b"\r\n"


def rows_of(body: bytes, model: Model, **how: Any) -> Any:
    """Return the rows of a form."""
    return read_form(body, FIELDS, FORM).rows(model, limits(**how))


@pytest.mark.parametrize("sent", ["image/png", "image/jpeg", "image/webp"])
def test_a_body_is_an_image_of_either_kind_whatever_is_said_of_it(sent: str, seen: Model) -> None:
    for content in (DRAWN, SMALL):
        message = read_image(content, FIELDS, sent)
        assert (message.fields, message.needs_images) == ({}, True)
        assert message.rows(seen, limits()).tolist() == [PIXELS.ravel().tolist()]


def test_files_of_a_form_are_rows_in_their_order_whatever_they_are_called(seen: Model) -> None:
    body = (
        part(DRAWN, b"a.png", b"Content-Type: image/png\r\n")
        + part(png(DARK), b"b.png", b"Content-Type: text/x\r\n")
        + part(SMALL)
        + b"--b--\r\n"
    )
    rows = rows_of(body, seen)
    assert rows.reshape(-1, 28, 28).tolist() == [each.tolist() for each in (PIXELS, DARK, PIXELS)]


@pytest.mark.parametrize(
    ("name", "shown"), [(b"\xfc.png", "\ufffd.png"), ("\u00fc.png".encode(), "\u00fc.png")]
)
def test_names_of_files_may_be_of_any_charset(name: bytes, shown: str, seen: Model) -> None:
    rows = rows_of(part(SMALL, name) + b"--b--\r\n", seen)
    assert rows.tolist() == [PIXELS.ravel().tolist()]
    sentence = re.escape(f"file 1 ({shown}): expected a PNG or JPEG image, got something else")
    with pytest.raises(InvalidInput, match=f"^{sentence}$"):
        rows_of(part(b"?", name) + b"--b--\r\n", seen)


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        (b'; name="f"\r\nContent-Type: image/png', "f"),  # as Java's HttpClient is used
        (b"; name=f\r\ncontent-type: Image/X; a=b", "f"),
        (b'; name="f"\r\nContent-Type: application/octet-stream', "f"),
        (b"; name=\"f\"; filename*=UTF-8''%C3%BC%20x.png", "\u00fc x.png"),
        (b"; filename*=\"utf-8'de'x.png\"; name=f", "x.png"),
        (b"; name=f; filename=a.png; filename*=utf-8''b.png", "a.png"),  # as .NET writes it
    ],
)
def test_a_file_is_known_by_its_name_or_its_media_type(
    head: bytes, shown: str, seen: Model
) -> None:
    begin = b"--b\r\nContent-Disposition: form-data" + head + b"\r\n\r\n"
    rows = rows_of(begin + SMALL + b"\r\n--b--\r\n", seen)
    assert rows.tolist() == [PIXELS.ravel().tolist()]
    with pytest.raises(InvalidInput, match=re.escape(f"file 1 ({shown}): expected a PNG")):
        rows_of(begin + b"?\r\n--b--\r\n", seen)


def test_a_form_has_as_many_files_as_a_request_may_have_rows(seen: Model) -> None:
    assert len(rows_of(part(SMALL) * 2 + b"--b--\r\n", seen, max_rows=2)) == 2
    with pytest.raises(TooLarge, match=r"^body: expected at most 2 files in one request$"):
        rows_of(part(SMALL) * 3 + b"--b--\r\n", seen, max_rows=2)


@pytest.mark.parametrize("length", [1, 70])
def test_a_boundary_has_1_to_70_characters(length: int, seen: Model) -> None:
    boundary = b"b" * length
    body = (part(SMALL) + b"--b--\r\n").replace(b"--b", b"--" + boundary)
    message = read_form(body, FIELDS, f"multipart/form-data; boundary={boundary.decode()}")
    assert len(message.rows(seen, limits())) == 1
    for wrong in ("", "b" * 71):
        with pytest.raises(InvalidInput, match="with a boundary of 1 to 70 characters, got"):
            read_form(body, FIELDS, f"multipart/form-data; boundary={wrong}")


def test_a_model_without_images_has_been_refused_before(tmp_path: Path) -> None:
    save_seen(tmp_path, channels=2, side=4, name="odd")
    odd = Model.open(tmp_path / "odd/1/model.onnx")
    with pytest.raises(RuntimeError, match="This is a bug"):
        read_image(SMALL, FIELDS, "image/png").rows(odd, limits())
