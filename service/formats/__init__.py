"""Bytes <-> rows and tensors of a model. No HTTP, no catalog.

registry      THE list of formats, by media type and suffix
message       what a format makes of a body, and what reading it may cost
json_bodies   JSON: short bodies at once, long ones in blocks
json_blocks, json_fast, json_rows, json_text, numbers    its blocks, the fast way, the definition
csv_rows      CSV; csv_table (what its first lines say), csv_header, csv_dialect, csv_cells
json_lines, msgpack_rows                    the other formats of rows
mlflow        data frames and tensors in JSON, as MLflow's clients send them
images/       PNG, JPEG and forms of them; only here is Pillow
turns         long work in a thread lets others run, and ends at its deadline
lines         files of rows, read from front to back
tensors       tensors of the Open Inference Protocol, JSON and binary
predictions   outputs as answers: JSON, JSON Lines, CSV
"""
