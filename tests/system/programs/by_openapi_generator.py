"""Calls a service by the client that openapi-generator wrote of its document.

    by_openapi_generator.py URL < ROWS

As by_python_client.py does it.
"""

import json
import sys

from written import ApiClient, ApiException, Configuration, DefaultApi
from written.models import (
    InferRequest,
    InferRequestInputsInner,
    PredictRequest,
    PredictToyRequest,
    ToyInferRequest,
)

rows = json.load(sys.stdin)
flat = [value for row in rows for value in row]


def tensor(data):
    return InferRequestInputsInner(name="input", datatype="FP32", shape=[len(rows), 4], data=data)


instances = {"instances": rows}
named = {"instances": [dict(zip("abcd", row, strict=True)) for row in rows]}
of_toy = ToyInferRequest.from_dict({"inputs": [tensor(flat).to_dict()]})
with ApiClient(Configuration(host=sys.argv[1])) as client:
    api = DefaultApi(client)
    predictions = [
        api.predict_toy(PredictToyRequest.from_dict(instances)),
        api.predict_toy(PredictToyRequest.from_dict(named)),
        api.predict(PredictRequest.from_dict({"model": "toy"} | instances)),
    ]
    outputs = [
        api.v2_model_infer("toy", InferRequest(inputs=[tensor(data)])) for data in (flat, rows)
    ] + [api.v2_infer_toy(of_toy)]
    try:
        api.v2_infer_toy(ToyInferRequest(inputs=[]))
    except (ApiException, ValueError) as error:
        refused = str(error)
said = {
    "predict": [each.to_dict() for each in predictions],
    "infer": [each.to_dict() for each in outputs],
    "refused": refused,
}
print(json.dumps(said))
