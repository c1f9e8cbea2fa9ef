"""The Open Inference Protocol.

infer      an inference, from body to reply; message, inputs, outputs, parameters are its parts
metadata   everything else below /v2; replies are what it answers
"""
