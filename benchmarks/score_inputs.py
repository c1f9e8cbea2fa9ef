"""The files that are scored: rows and images made from a fixed seed, none of a data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from msgspec import Struct
from PIL import Image, ImageDraw

SEED = 0
FILES = 10  # of a folder
SIDE = 200  # pixels of an image
LARGEST, DECIMALS = 9.0, 2  # of a value; the least is 0


class Inputs(Struct, frozen=True):
    """The same rows in one file, and in a folder of several; a tenth of them in `first`."""

    file: Path
    folder: Path
    rows: int

    @property
    def first(self) -> Path:
        """The first file of the folder."""
        return self.folder / f"0{self.file.suffix}"


def rows_in(folder: Path, names: list[str], suffix: str, rows: int) -> Inputs:
    """Write rows of columns of these names as `.csv` or `.parquet`; return where they are."""
    inputs = Inputs(folder / f"all{suffix}", folder / f"parts{suffix}", rows)
    inputs.folder.mkdir(parents=True)
    schema = pa.schema([(name, pa.float64()) for name in names])
    with _writer(inputs.file, schema) as every:
        for number in range(FILES):
            table = _table(number, schema, rows // FILES)
            every.write_table(table)
            with _writer(inputs.folder / f"{number}{suffix}", schema) as part:
                part.write_table(table)
    return inputs


def _table(number: int, schema: pa.Schema, rows: int) -> pa.Table:
    random = np.random.default_rng([SEED, number])
    columns = [random.uniform(0, LARGEST, rows).round(DECIMALS) for _ in schema.names]
    return pa.table(columns, schema)


def _writer(path: Path, schema: pa.Schema) -> Any:
    writer = pa_csv.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
    return writer(path, schema)


def images_in(folder: Path, count: int) -> Path:
    """Write PNG of three strokes each, bright on dark; return the folder."""
    folder.mkdir()
    random = np.random.default_rng(SEED)
    for number in range(count):
        grain = random.integers(0, 40, (SIDE, SIDE), np.uint8)
        image = Image.fromarray(grain)
        for _ in range(3):
            ends = random.integers(SIDE // 4, SIDE * 3 // 4, 4).tolist()
            ImageDraw.Draw(image).line(ends, fill=255, width=SIDE // 12)
        image.save(folder / f"{number:05}.png")
    return folder


def read_back(path: Path) -> pa.Table:
    """Return the answers of a file, or of a folder of them."""
    files = [path] if path.is_file() else [*path.glob("*.csv"), *path.glob("*.parquet")]
    tables = [
        pa_csv.read_csv(each) if each.suffix == ".csv" else pq.read_table(each) for each in files
    ]
    filled = [each for each in tables if each.num_rows]
    return pa.concat_tables(filled, promote_options="permissive")
