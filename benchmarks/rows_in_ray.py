"""Answer a folder of CSV or Parquet with Ray Data and two actors.

python -m benchmarks.rows_in_ray MODEL FOLDER FORMAT OUTPUT
"""

import sys
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from service.batch import Scorer

CORES = 4  # as Ray counts: actors that hold all of them would starve who reads
STORE_BYTES = 500 * 2**20


class Answers:
    """An actor."""

    def __init__(self, model: str) -> None:
        """Open the model."""
        self._scorer = Scorer(model)

    def __call__(self, rows: Any) -> Any:
        """Return the answers to a table."""
        return self._scorer(rows)


def main(model: str, folder: str, format: str, output: str) -> None:
    """Write the answers as a folder of the same format."""
    ray.init(num_cpus=CORES, object_store_memory=STORE_BYTES, include_dashboard=False)
    read = ray.data.read_csv if format == "csv" else ray.data.read_parquet
    answered = read(folder).map_batches(
        Answers,
        fn_constructor_args=(model,),
        batch_format="pyarrow",
        batch_size=65_536,
        compute=ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    write = answered.write_csv if format == "csv" else answered.write_parquet
    write(output)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
