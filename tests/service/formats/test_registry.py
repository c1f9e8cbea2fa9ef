import pytest

from service.errors import UnsupportedMediaType
from service.formats.registry import (
    BY_SUFFIX,
    CSV,
    FORM,
    FORMATS,
    IMAGE,
    JSON,
    JSON_LINES,
    MSGPACK,
    Format,
    format_of,
    media_type_of,
)

KNOWN: list[tuple[str, Format]] = [
    ("application/json", JSON),
    ("Application/JSON; charset=utf-8", JSON),
    ("text/csv", CSV),
    ("TEXT/CSV;header=absent", CSV),
    ("application/csv", CSV),
    ("text/tab-separated-values", CSV),
    ("application/jsonlines", JSON_LINES),
    ("application/x-ndjson", JSON_LINES),
    ("application/jsonl", JSON_LINES),
    ("application/msgpack", MSGPACK),
    ("application/x-msgpack", MSGPACK),
    ("application/vnd.msgpack", MSGPACK),
    ("image/png", IMAGE),
    ("image/jpeg", IMAGE),
    ("image/jpg", IMAGE),
    ("Image/PNG; q=1", IMAGE),
    ('multipart/form-data; boundary="a;b"', FORM),
    ("", JSON),  # these say nothing of what a body is
    ("application/octet-stream", JSON),
    ("application/x-www-form-urlencoded", JSON),
]


@pytest.mark.parametrize(("content_type", "format"), KNOWN)
@pytest.mark.parametrize("is_strict", [True, False])
def test_a_content_type_says_the_format(content_type: str, format: Format, is_strict: bool) -> None:
    assert format_of(content_type, is_strict=is_strict) is format


def test_what_is_not_known_is_json_unless_it_is_an_image_or_one_is_strict() -> None:
    expected = (
        "application/json, text/csv, application/jsonlines, application/msgpack, image/png, "
        "image/jpeg or multipart/form-data"
    )
    for sent in ("text/plain", "csv", "application/x-recordio-protobuf", "caf\u00e9"):
        assert format_of(sent, is_strict=False) is JSON
        with pytest.raises(UnsupportedMediaType) as raised:
            format_of(sent, is_strict=True)
        assert str(raised.value) == f'Content-Type: expected {expected}, got "{sent}"'
    for is_strict in (True, False):
        with pytest.raises(UnsupportedMediaType, match=r'got "image/webp"$'):
            format_of("image/webp", is_strict=is_strict)


def test_what_is_known_and_not_allowed_there_is_refused_or_json() -> None:
    allowed = (JSON, IMAGE, FORM)
    assert format_of("image/png", allowed, is_strict=True) is IMAGE
    assert format_of("text/csv", allowed, is_strict=False) is JSON
    with pytest.raises(UnsupportedMediaType) as raised:
        format_of("text/csv", allowed, is_strict=True)
    assert str(raised.value) == (
        "Content-Type: expected application/json, image/png, image/jpeg or multipart/form-data, "
        'got "text/csv"'
    )


def test_a_long_content_type_is_cut_short() -> None:
    with pytest.raises(UnsupportedMediaType) as raised:
        format_of("x" * 5000, is_strict=True)
    assert len(str(raised.value)) < 250


def test_a_media_type_is_in_lower_case_and_has_no_parameters() -> None:
    assert media_type_of("Text/CSV; header=absent") == "text/csv"
    assert media_type_of("") == ""


def test_a_suffix_says_the_format_of_a_file() -> None:
    assert BY_SUFFIX == {
        ".csv": CSV,
        ".jsonl": JSON_LINES,
        ".ndjson": JSON_LINES,
        ".msgpack": MSGPACK,
    }


def test_no_two_formats_share_a_name_a_media_type_or_a_suffix() -> None:
    for of_each in (
        [each.name for each in FORMATS],
        [name for each in FORMATS for name in each.media_types],
        [suffix for each in FORMATS for suffix in each.suffixes],
    ):
        assert len(set(of_each)) == len(of_each)
    for each in FORMATS:
        assert set(each.named) <= set(each.media_types)
        assert bool(each.suffixes) == (each.rows is not None)
