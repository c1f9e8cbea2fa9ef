"""Makes every file of the matrix; runs in the environment of requirements.txt.

    make.py MODELS ANSWERS [NAME...]

Writes MODELS/name/1/model.onnx and ANSWERS/name.json: the rows, what the library that trained the
model answers for them, and what the file takes and gives.
"""

import os

os.environ |= {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}

import sys
import warnings
from pathlib import Path

import of_boosting  # noqa: F401  (they register their cases)
import of_sklearn  # noqa: F401
import of_torch  # noqa: F401
from case import CASES


def main(models: Path, answers: Path, only: list[str]) -> None:
    """Make all files, or those that are named."""
    answers.mkdir(parents=True)
    warnings.simplefilter("ignore")  # of the libraries, about each other
    for name in only or CASES:
        CASES[name]().save(models, answers, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
