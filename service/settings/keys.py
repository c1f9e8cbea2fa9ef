"""Who may call, as the settings say: API keys, and the origins of web pages."""

import re
from pathlib import Path

from service.errors import InvalidSetting
from service.settings.settings import Settings

SHORTEST_KEY = 16
_ANCESTOR = re.compile(
    r"\*|[a-z][a-z0-9+.-]*://(\*\.[a-z0-9.-]+|[a-z0-9.-]+|\[[0-9a-f:]+\])(:(\*|[0-9]+))?"
)
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+")


def origins(settings: Settings) -> list[bytes]:
    """Return the origins, as browsers send them. Raises InvalidSetting."""
    named = settings.cors_origins.replace(",", " ").split()
    for origin in named:
        if not _ORIGIN.fullmatch(origin):
            raise InvalidSetting(
                f"TORCHLIT_CORS_ORIGINS: expected `*` or origins such as https://a.example:8443, "
                f"got {origin!r}"
            )
    return [origin.encode() for origin in named]


def ancestors(settings: Settings) -> str:
    """Return who may show our pages in a frame, as a browser takes it. Raises InvalidSetting.

    CSP Level 3, section 6.4.2.1 (frame-ancestors).
    """
    named = settings.frame_ancestors.replace(",", " ").replace("'self'", "self").split()
    for each in named:
        if each != "self" and not _ANCESTOR.fullmatch(each):
            variable = "TORCHLIT_FRAME_ANCESTORS"
            expected = "`*`, `self` or origins such as https://a.example or https://*.a.example"
            raise InvalidSetting(f"{variable}: expected {expected}, got {each!r}", variable)
    return " ".join("'self'" if each == "self" else each for each in named) or "'none'"


def keys(settings: Settings) -> list[str]:
    """Return the keys of the environment and of the file. Raises InvalidSetting."""
    keys = {}
    if settings.api_keys is not None:
        keys["TORCHLIT_API_KEYS"] = settings.api_keys.replace(",", " ").split()
    if settings.api_keys_file is not None:
        keys["TORCHLIT_API_KEYS_FILE"] = _keys_of_file(settings.api_keys_file)
    for variable, each in keys.items():
        if not each:  # a secret that did not arrive is no reason to let everybody in
            raise InvalidSetting(f"{variable}: expected at least one key, got none")
        if any(len(key) < SHORTEST_KEY or not key.isascii() for key in each):
            expected = f"keys of at least {SHORTEST_KEY} ASCII characters"
            raise InvalidSetting(f"{variable}: expected {expected}, got another")
    return [key for each in keys.values() for key in each]


def _keys_of_file(path: Path) -> list[str]:
    """Return the keys of a file, one a line; empty lines and those that begin with # are none."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidSetting(f"TORCHLIT_API_KEYS_FILE: {path}: cannot be read: {why}") from error
    return [line for line in lines if line and not line.startswith("#")]
