"""What is chosen from outside, and what the machine allows."""

from service.settings.settings import (
    OF_PLATFORMS,
    PREFIX,
    Settings,
    describe,
    is_set,
    variable_name,
)

__all__ = ["OF_PLATFORMS", "PREFIX", "Settings", "describe", "is_set", "variable_name"]
