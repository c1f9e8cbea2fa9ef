"""JSON Schema."""

from typing import Any

import jsonschema_rs
from jsonschema import Draft202012Validator
from openapi_spec_validator.schemas import schema_v31

OPENAPI = jsonschema_rs.validator_for(dict(schema_v31))


def check_value(value: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless a value is right for a schema.

    `jsonschema.validate` checks the schema each time too, with all components that are within
    reach: most of the time of such a test. That OpenAPI documents are right is tested by itself.
    """
    Draft202012Validator(schema).validate(value)


def check_document(document: dict[str, Any]) -> None:
    """Raise jsonschema_rs.ValidationError unless an OpenAPI document and its schemas are right.

    A hundredth of the time of openapi_spec_validator, which looks at more: that is for a document
    of every kind of model.
    """
    OPENAPI.validate(document)
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
