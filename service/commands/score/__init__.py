"""`python -m service score`: answers for each row of a file.

job        the command: from the first batch to the last
rows       the input, in batches
layout     answers as bytes
output     a file that is written bit by bit, and goes on after a crash
progress   how far it is
"""
