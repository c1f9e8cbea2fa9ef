"""JSON Schema."""

from typing import Any

from jsonschema import Draft202012Validator


def check_value(value: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError unless a value is right for a schema.

    `jsonschema.validate` checks the schema each time too, with all components that are within
    reach: most of the time of such a test. That OpenAPI documents are right is tested by itself.
    """
    Draft202012Validator(schema).validate(value)
