"""Calls a service by the client that openapi-python-client wrote of its document.

    by_python_client.py URL < ROWS

Runs in the environment of requirements.txt, with the package `written` beside. Prints a JSON object
of replies: `predict`, also by names, `infer`, and the sentence of a refusal.
"""

import json
import sys

from written import Client
from written.api.default import predict, predict_toy, v2_infer_toy, v2_model_infer
from written.models.datatype import Datatype
from written.models.error import Error
from written.models.infer_request import InferRequest
from written.models.infer_request_inputs_item import InferRequestInputsItem
from written.models.predict_json_body import PredictJsonBody
from written.models.predict_json_body_model import PredictJsonBodyModel
from written.models.predict_toy_json_body import PredictToyJsonBody
from written.models.toy_infer_request import ToyInferRequest
from written.models.toy_instance_type_1 import ToyInstanceType1
from written.models.v2_model_infer_model import V2ModelInferModel

client = Client(sys.argv[1])
rows = json.load(sys.stdin)
flat = [value for row in rows for value in row]


def tensor(data):
    shape = [len(rows), 4]
    return InferRequestInputsItem(name="input", datatype=Datatype.FP32, shape=shape, data=data)


named = PredictToyJsonBody([ToyInstanceType1(*row) for row in rows])
of_any = PredictJsonBody(model=PredictJsonBodyModel.TOY, instances=rows)
of_toy = ToyInferRequest.from_dict({"inputs": [tensor(flat).to_dict()]})
predictions = [
    predict_toy.sync(client=client, body=PredictToyJsonBody(rows)),
    predict_toy.sync(client=client, body=named),
    predict.sync(client=client, body=of_any),
]
outputs = [
    v2_model_infer.sync(V2ModelInferModel.TOY, client=client, body=InferRequest([tensor(data)]))
    for data in (flat, rows)
] + [v2_infer_toy.sync(client=client, body=of_toy)]
refused = predict_toy.sync(client=client, body=PredictToyJsonBody([[1.0, 2.0]]))
assert isinstance(refused, Error)
said = {
    "predict": [each.to_dict() for each in predictions],
    "infer": [each.to_dict() for each in outputs],
    "refused": refused.error,
}
print(json.dumps(said))
