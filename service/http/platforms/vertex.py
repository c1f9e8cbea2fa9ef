"""What Vertex AI wants of a container: POST AIP_PREDICT_ROUTE.

Source, as of 2026: "Custom container requirements for inference": {"instances": [...],
"parameters": {...}} -> {"predictions": [...]}. The model is the default one, or the one that the
parameters name.
"""

from typing import Any

from service.batching import Outputs
from service.catalog.served import ServedModel
from service.errors import InvalidInput
from service.formats.message import Fields
from service.formats.registry import JSON
from service.http.reply import Reply
from service.http.rest.dialect import Dialect, Said, writer_of
from service.http.rest.predict import Rows
from service.words import did_you_mean, shown

_PARAMETERS = frozenset({"model", "version"})


def _answered(said: Said, served: ServedModel, outputs: Outputs) -> Reply:
    return Reply([b'{"predictions":%b}' % writer_of(served)(outputs)])


def _named(in_path: str | None, fields: Fields) -> tuple[Any, Any]:
    """Return the model and the version that the parameters name, None where they do not.

    The route may be /predict/iris, which names a model too. Numbers may come as 1.0, as they went
    through a protobuf Value. Raises InvalidInput.
    """
    parameters = fields.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        got = shown(parameters)
        raise InvalidInput(f"parameters: expected an object of model and version, got {got}")
    for name in parameters:
        if name not in _PARAMETERS:
            hint = did_you_mean(name, _PARAMETERS)
            raise InvalidInput(f"parameters: {shown(name)}: unknown field{hint}")
    name, version = parameters.get("model"), parameters.get("version")
    if isinstance(version, float) and version.is_integer():
        version = int(version)
    return in_path if name is None else name, version


_FIELDS = frozenset({"instances", "parameters"})

vertex = Rows(Dialect(_FIELDS, _named, _answered, formats=(JSON,)))
