"""Rows in columns: tables of Arrow -> tables of answers, with no service and no engine.

scorer     a table -> its answers, as POST /predict would give them
tables     which columns of a table are those of a model
inputs     columns -> what the graph takes, and which rows are not sure to fit
images     a column of images -> pixels
runs       rows -> outputs, and why some have none
outputs    outputs -> columns
answered   what a block of an input becomes
csv_blocks   CSV in blocks that are read at once, or row by row
"""

from service.batch.scorer import Scorer

__all__ = ["Scorer"]
