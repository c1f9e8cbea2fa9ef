"""The servers of servers.toml: their models, by name, and what is the same for all of them."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

from service.settings import Settings
from tests.support.toys import (
    save_fussy,
    save_kinds,
    save_lengths,
    save_mean,
    save_pictured,
    save_same,
    save_scores,
    save_seen,
    save_sequenced,
    save_sum,
    save_table,
    save_toy,
    toy_answer,
    toy_card,
)

Counts = Counter[tuple[str, str]]  # (outcome, "model/version"), of a request to no model ""
# For /predict/toy, which every server has; as many rows as one takes, and as make a batch.
GOOD = {"instances": [[1, 2, 3, n] for n in range(5)]}
REQUESTS = re.compile(r"^torchlit_(?:unmatched_)?requests_total\{(.*)\} (\S+)$", re.MULTILINE)


class Server(NamedTuple):
    name: str
    models: list[str]
    settings: dict[str, Any]
    headers: dict[str, str]  # that a good request has

    def save_models(self, folder: Path) -> Path:
        for name in self.models:
            MODELS[name](folder)
        return folder

    def settings_of(self, folder: Path) -> Settings:
        return Settings(models_dir=folder, watch=False, **self.settings)


def _servers() -> dict[str, Server]:
    said = tomllib.loads(Path(__file__).with_name("servers.toml").read_text())
    return {
        name: Server(
            name,
            server["models"],
            server["settings"],
            {"X-API-Key": server["key"]} if "key" in server else {},
        )
        for name, server in said.items()
    }


def _broken(folder: Path, name: str = "broken") -> None:
    """Versions 2 and 4, neither of which can be opened."""
    for version in (2, 4):
        path = folder / name / str(version) / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no model")


def _half(folder: Path) -> None:
    """Version 1, and versions 2 and 4, which cannot be opened."""
    _broken(folder, "half")
    save_same(folder, ["batch", 2], name="half")


def _pictured(folder: Path) -> None:
    """The toy under another name, with loss.png that its card lists, and files that it does not."""
    picture = save_pictured(folder / "elsewhere")
    for file in ("state_dict.pt", "request.json", "other.png"):
        picture.with_name(file).write_text("secret")
    (folder / "elsewhere/toy").rename(folder / "pictured")
    (folder / "elsewhere").rmdir()
    for outside in (folder, folder.parent):
        (outside / "secret.png").write_text("secret")


MODELS: dict[str, Callable[[Path], object]] = {
    "toy": lambda folder: save_toy(folder, card=toy_card()),  # 4 features a to d, 3 labels
    "mean": save_mean,  # an image of 2 x 3 -> a value
    "sum": save_sum,  # two inputs
    "same": partial(save_same, shape=["batch", 4]),  # no card
    "fixed": partial(save_same, shape=[2, 3], name="fixed"),  # always two rows
    "scalar": partial(save_same, shape=[], name="scalar"),  # no rows
    "word": partial(save_same, shape=["batch", 1], dtype=TensorProto.STRING, name="word"),
    "open": partial(save_same, shape=["batch", "wide"], name="open"),
    "several": partial(save_same, shape=["batch", 2], dtype=TensorProto.INT64, name="several"),
    "lengths": save_lengths,  # rows of any length
    "scores": save_scores,  # two inputs, no batch
    "kinds": save_kinds,  # an input of each datatype
    "sequenced": save_sequenced,  # an output that the protocol cannot carry
    "fussy": save_fussy,  # 1 / (x - 7)
    "table": save_table,  # fails from 3
    "pictured": _pictured,
    "broken": _broken,
    "half": _half,
    "seen": save_seen,  # a grey image of 28 x 28
    "odd": partial(save_seen, channels=2, side=4, name="odd"),
}
SERVERS = _servers()


def check_good(status: int, answer: Any) -> None:
    """Check the answer to GOOD by the toy's formula."""
    assert status == 200, answer
    rows = [list(each["probabilities"].values()) for each in answer["predictions"]]
    np.testing.assert_allclose(rows, toy_answer(np.array(GOOD["instances"])), atol=1e-6)


def counts(metrics: str) -> Counts:
    """Return how many requests /metrics has, by outcome and model."""
    counted: Counts = Counter()
    for labels, value in REQUESTS.findall(metrics):
        said = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        of = f"{said['model']}/{said['version']}" if "model" in said else ""
        counted[said["outcome"], of] += int(float(value))
    return counted
