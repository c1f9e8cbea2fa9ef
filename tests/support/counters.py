"""Counters of a toy, as Prometheus reads them."""

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics, ModelMetrics
from service.metrics.exposition import render


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the exposition with prometheus_client's own reader."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    lines = render(metrics).splitlines(keepends=True)
    own = b"".join(line for line in lines if line.startswith(name.encode()))
    return samples(own)[name, frozenset(labels.items())]


def add(metrics: Metrics, version: str = "1") -> ModelMetrics:
    return metrics.add(
        "toy", version, labels=["red", "blue"], features=["a"], info={"provider": "CPU"}
    )


def run_as_a_worker(folder: Path, number: int, code: str) -> None:
    """Let a process be worker `number`, with `metrics`, and end."""
    begin = f"""
import time
from pathlib import Path
from service.metrics import Blocks, Metrics
metrics = Metrics(Blocks(Path({str(folder)!r}), {number}))
"""
    subprocess.run([sys.executable, "-c", begin + code], check=True)
