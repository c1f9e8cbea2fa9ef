import os
import subprocess
import sys

import pytest


def run(code: str, **environment: str) -> str:
    """Run Python code without the settings that training chooses; return what it prints."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPENBLAS_NUM_THREADS", "ORT_DISABLE_TELEMETRY")
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_onnx_runtime_does_not_report_home() -> None:
    assert run("import os, training; print(os.environ['ORT_DISABLE_TELEMETRY'])") == "1"


THREADS = """
import numpy, threadpoolctl
pools = threadpoolctl.threadpool_info()
print(*{pool["num_threads"] for pool in pools if pool["internal_api"] == "openblas"})
"""


@pytest.mark.parametrize("order", ["training, service.card", "service.card, training"])
def test_numpy_has_one_thread_whatever_is_imported_first(order: str) -> None:
    assert run(f"import {order}{THREADS}") == "1"


def test_threads_of_the_environment_are_kept() -> None:
    assert run(f"import training{THREADS}", OPENBLAS_NUM_THREADS="2") == "2"


def test_card_changes_neither_the_environment_nor_the_threads() -> None:
    code = "import os; before = dict(os.environ); import service.card"
    assert run(f"{code}; print(dict(os.environ) == before)") == "True"
    assert run(f"import service.card{THREADS}") == run(THREADS)
