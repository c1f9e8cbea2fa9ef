"""The outputs that a request wants, and the reply that holds them."""

from typing import Any

from msgspec import UNSET, Struct

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.formats import tensors
from service.formats.predictions import encode
from service.http.reply import Fragments, Reply
from service.http.v2.message import HEADER_LENGTH
from service.v2.outputs import Wanted, labels_of

BINARY = b"application/octet-stream"


class OutputTensor(Struct):
    """One output of a reply: `data`, or binary data behind the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Any = UNSET
    data: Any = UNSET


class InferReply(Struct):
    """The JSON of a reply."""

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]


def infer_reply(
    served: ServedModel, reply_id: str, wanted: list[Wanted], outputs: Outputs
) -> Reply:
    """Return the reply: JSON, and the binary data that was wanted behind it.

    Raises InferenceFailed for NaN in JSON.
    """
    model = served.model
    described: list[OutputTensor] = []
    binary: Fragments = []
    for each in wanted:
        array, tensor = outputs[each.place], model.outputs[each.place]
        if each.most_classes:
            labels = labels_of(model, each.place)
            array = tensors.classified(array, each.most_classes, labels, has_rows=model.is_batched)
        datatype = "BYTES" if each.most_classes else tensors.NAMES[tensor.dtype]
        output = OutputTensor(tensor.name, datatype, array.shape)
        if each.is_binary:
            binary.append(tensors.as_binary(array))
            output.parameters = {"binary_data_size": len(binary[-1])}
        else:
            served.check_finite([array])
            output.data = tensors.as_json(array)
        described.append(output)
    head = encode(InferReply(served.name, str(served.version), reply_id, described))
    if not binary:
        return Reply([head], is_compressible=True)
    headers = [(HEADER_LENGTH, b"%d" % len(head))]
    return Reply([head, *binary], content_type=BINARY, headers=headers, is_compressible=True)
