"""What Vertex AI wants of a container: POST AIP_PREDICT_ROUTE.

Source, as of 2026: "Custom container requirements for inference": {"instances": [...],
"parameters": {...}} -> {"predictions": [...]}. The model is the default one, or the one that the
parameters name.
"""

from typing import Any

from service.errors import InvalidInput
from service.formats.message import Fields
from service.formats.registry import JSON
from service.http.procedure import Procedure
from service.http.rest.dialect import Dialect, predictions_alone
from service.http.rest.predict import Rows
from service.http.rest.several import Several
from service.words import misspelt, shown

_PARAMETERS = frozenset({"model", "version"})


def _named(in_path: str | None, fields: Fields) -> tuple[Any, Any]:
    """Return the model and the version that the parameters name, None where they do not.

    The route may be /predict/iris, which names a model too. Numbers may come as 1.0, as they went
    through a protobuf Value. Other parameters are passed over, unless they are misspelt ones.
    Raises InvalidInput.
    """
    parameters = fields.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        got = shown(parameters)
        raise InvalidInput(f"parameters: expected an object of model and version, got {got}")
    for name in parameters:
        if name not in _PARAMETERS and (meant := misspelt(name, _PARAMETERS)):
            hint = f"unknown field; did you mean {meant}?"
            raise InvalidInput(f"parameters: {shown(name)}: {hint}")
    name, version = parameters.get("model"), parameters.get("version")
    if isinstance(version, float) and version.is_integer():
        version = int(version)
    return in_path if name is None else name, version


_FIELDS = frozenset({"instances", "parameters"})

vertex = Rows(Dialect(_FIELDS, _named, predictions_alone, formats=(JSON,)))


def beside_vertex(own: Procedure) -> Several:
    """Return the steps of a route of ours that is Vertex AI's too.

    Its bodies are answered as it wants it: those without a model beside the instances. All others
    are taken and answered as ours.
    """
    if isinstance(own, Several):
        return Several(own.own, (vertex, *own.of_json))
    if isinstance(own, Rows):
        return Several(own, (vertex, own))
    raise RuntimeError("a route whose bodies are no rows. This is a bug.")
