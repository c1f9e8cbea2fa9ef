"""The Open Inference Protocol, whatever carries it.

inputs, outputs, parameters    what a request may say, and the sentences of what it may not
metadata    everything but inference; replies are its forms
"""
