"""The Open Inference Protocol.

infer      an inference, from body to reply; message, inputs and outputs are its parts
metadata   everything else below /v2
"""
