"""Scoring in columns: files become blocks, worker processes answer them, one process writes.

job       from the first block to the last
sources   the files of INPUT, and their blocks
unpacked  what a compressed file holds
steps     the way through them
writers   answers as bytes, and what a part becomes in the end
folder    OUTPUT.part/: a folder in the making, and its manifest
pool      workers: blocks out, answers in, in order
processes the worker processes of this machine
worker    what happens in each of them
on_ray    actors of a Ray cluster in their place
shipped   a model as it is sent there
"""
