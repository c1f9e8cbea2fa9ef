"""`python -m service score`: answers for each row of a file, or of many.

command    which way the rows go: in columns, or row by row
options    what the command line says
suffixes   which file is of which kind, and the files of a folder
columns/   in columns: blocks, worker processes, many files; needs pyarrow
job        row by row: from the first batch to the last
rows       row by row: the input, in batches
layout     row by row: answers as bytes; the names of the columns for both
scoring    what both do on their way: count, keep, say; and how a job goes on
whole      a file that is read to the end that it had
identity   what the bytes of a result depend on
output     a file that is written bit by bit, and goes on after a crash
progress   how far it is
"""
