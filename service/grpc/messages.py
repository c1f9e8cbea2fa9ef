"""The messages of the protocol, from protocol/torchlit.protoset.

They are in a pool of their own: another library of the process may have files of the same names.
"""

from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from service.errors import InvalidInput

PROTOSET = Path(__file__).parent / "protocol" / "torchlit.protoset"
SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

Message: TypeAlias = Any  # its classes are made when this module is imported


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(PROTOSET.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()


def message(name: str) -> Message:
    """Return the class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


def request_of(service: str, method: str) -> Message:
    """Return the class of what a method takes."""
    found = _POOL.FindServiceByName(service).methods_by_name[method]
    return message_factory.GetMessageClass(found.input_type)


def answer_of(service: str, method: str) -> Message:
    """Return the class of what a method answers."""
    found = _POOL.FindServiceByName(service).methods_by_name[method]
    return message_factory.GetMessageClass(found.output_type)


ModelInferRequest = message("inference.ModelInferRequest")
ModelInferResponse = message("inference.ModelInferResponse")
InferTensorContents = message("inference.InferTensorContents")
InferOutputTensor = message("inference.ModelInferResponse.InferOutputTensor")


def parsed(of: Message, data: bytes) -> Message:
    """Return a message. Raises InvalidInput for what is none of its kind."""
    try:
        return of.FromString(data)
    except DecodeError as error:
        name = of.DESCRIPTOR.name
        raise InvalidInput(f"message: expected a {name}, got something else") from error
