"""Rows in columns: tables of Arrow -> tables of answers, with no service and no engine.

scorer        a table -> its answers, as POST /predict would give them
tables        which columns of a table are those of a model
inputs        columns -> what the graph takes, and which rows are not sure to fit
images        a column of images -> pixels
runs          rows -> outputs, and why some have none
outputs       outputs -> columns
answered      what a block of a file becomes
csv_input     a CSV file -> blocks of whole rows
csv_blocks    a block -> answers
csv_columns   lines -> columns
"""

from service.batch.scorer import Scorer

__all__ = ["Scorer"]
