from pathlib import Path

import pytest

from service.errors import InvalidSetting
from service.settings import Settings
from service.settings.keys import ancestors, keys, origins

KEY, OTHER = "a-key-of-24-characters-01", "another-key-of-24-chars-2"


def test_keys_are_those_of_the_environment_and_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the web shop\n {OTHER} \n\n#{OTHER}x\n")
    assert keys(Settings()) == []
    assert keys(Settings(api_keys=f"{KEY}, {OTHER}\n{KEY}x")) == [KEY, OTHER, f"{KEY}x"]
    assert keys(Settings(api_keys=KEY, api_keys_file=file)) == [KEY, OTHER]


@pytest.mark.parametrize("text", ["", " , ", "short", f"{KEY},{KEY[:15]}", f"{KEY},\u00e9{KEY}"])
def test_keys_that_are_none_are_refused_and_not_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text.replace(",", "\n"))
    for variable, settings in (
        ("TORCHLIT_API_KEYS", Settings(api_keys=text)),
        ("TORCHLIT_API_KEYS_FILE", Settings(api_keys_file=file)),
    ):
        with pytest.raises(InvalidSetting) as raised:
            keys(settings)
        assert str(raised.value) in (
            f"{variable}: expected at least one key, got none",
            f"{variable}: expected keys of at least 16 ASCII characters, got another",
        )


def test_a_file_of_keys_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, why in (("absent", "No such file or directory"), ("binary", "not UTF-8 text")):
        path = tmp_path / name
        with pytest.raises(InvalidSetting) as raised:
            keys(Settings(api_keys_file=path))
        assert str(raised.value) == f"TORCHLIT_API_KEYS_FILE: {path}: cannot be read: {why}"


def test_origins_are_those_that_browsers_send() -> None:
    assert origins(Settings()) == []
    assert origins(Settings(cors_origins="*")) == [b"*"]
    named = "https://a.example:8443, http://[::1]:80\nmoz-extension://x-1"
    assert origins(Settings(cors_origins=named)) == [
        b"https://a.example:8443",
        b"http://[::1]:80",
        b"moz-extension://x-1",
    ]


@pytest.mark.parametrize("origin", ["page.example", "https://page.example/", "https://A.example"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        origins(Settings(cors_origins=f"* {origin}"))
    assert str(raised.value) == (
        "TORCHLIT_CORS_ORIGINS: expected `*` or origins such as https://a.example:8443, "
        f"got {origin!r}"
    )


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", "'none'"),
        ("*", "*"),
        ("self", "'self'"),
        (
            "'self', https://a.example:8443 https://*.b.example http://[::1]:*",
            "'self' https://a.example:8443 https://*.b.example http://[::1]:*",
        ),
    ],
)
def test_who_may_show_the_pages_in_a_frame_is_said_as_browsers_take_it(
    text: str, policy: str
) -> None:
    assert ancestors(Settings(frame_ancestors=text)) == policy


@pytest.mark.parametrize(
    "text",
    [
        *("a.example", "https://a.example/", "none", "https:", "https://*", "'unsafe-inline'"),
        *("https://a.example;script-src", "https://a.example\r\nx: y", "https://*.*.example"),
    ],
)
def test_who_is_no_ancestor_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting) as raised:
        ancestors(Settings(frame_ancestors=text))
    assert str(raised.value).startswith(
        "TORCHLIT_FRAME_ANCESTORS: expected `*`, `self` or origins such as https://a.example or "
        "https://*.a.example, got "
    )
    assert raised.value.variable == "TORCHLIT_FRAME_ANCESTORS"
