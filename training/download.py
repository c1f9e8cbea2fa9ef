"""Download data files from their mirrors. Only this module imports httpx."""

import tempfile
import time
from pathlib import Path

import httpx
from tqdm import tqdm

from training.data import File
from training.errors import DataUnavailable, InvalidData

ROUNDS = 3  # how often every mirror is tried
TIMEOUT_S = 30


def download(file: File, path: Path) -> None:
    """Download a data file to `path`, as from_mirrors does. Raises DataUnavailable."""
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
        from_mirrors(file, path, client)


def from_mirrors(file: File, path: Path, client: httpx.Client, backoff_s: float = 1.0) -> None:
    """Fetch a data file from the first mirror that has the right bytes, and put it at `path`.

    It is written beside, verified, then renamed. Every mirror is tried ROUNDS times, with a wait
    of `backoff_s`, then twice that, between the rounds. Raises DataUnavailable.
    """
    reason = "no mirror is known"
    for attempt in range(ROUNDS):
        time.sleep(backoff_s * attempt)
        for url in file.urls:
            try:
                return _fetch(url, file, path, client)
            except (httpx.HTTPError, InvalidData) as error:
                reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            except OSError as error:
                raise DataUnavailable(f"{path}: cannot be written: {error.strerror}") from error
    decompressed = "decompressed " if path.suffix == ".gz" else ""
    raise DataUnavailable(
        f"{path} is missing and could not be downloaded ({reason}): put the file there, from "
        f"{' or '.join(file.urls)}; the SHA-256 of its {decompressed}content is {file.sha256}"
    )


def _fetch(url: str, file: File, path: Path, client: httpx.Client) -> None:
    # Not encoded, and raw: a .gz must arrive as it is, not decompressed on the way.
    with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            staged = Path(folder) / path.name
            _write(response, staged)
            file.content(staged.read_bytes(), url)
            staged.replace(path)


def _write(response: httpx.Response, path: Path) -> None:
    total = int(response.headers.get("Content-Length", 0)) or None
    with (
        path.open("wb") as out,
        tqdm(desc=path.name, total=total, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in response.iter_raw():
            bar.update(out.write(chunk))
