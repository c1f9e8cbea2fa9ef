"""Answer a folder of CSV or Parquet with Spark on two cores, as docs/engines.md shows it.

python -m benchmarks.rows_in_spark MODEL FOLDER FORMAT OUTPUT
"""

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from service.batch import Scorer


def main(model: str, folder: str, format: str, output: str) -> None:
    """Write the answers as a folder of the same format."""
    scorer = Scorer(model)
    schema = scorer.schema.append(pa.field("error", pa.string()))

    def answers(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield from scorer(batch).to_batches()

    session = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = session.config("spark.sql.execution.arrow.maxRecordsPerBatch", 65_536).getOrCreate()
    reader = spark.read.format(format)
    if format == "csv":
        names = scorer.model.column_names
        columns = ", ".join(f"`{name}` DOUBLE" for name in names)
        reader = reader.schema(columns).option("header", True)
    answered = reader.load(folder).mapInArrow(answers, from_arrow_schema(schema))
    answered.write.format(format).option("header", True).save(output)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
