"""The header that says which version answered, where what is answered does not say it."""

from service.catalog.served import ServedModel

VERSION = b"x-model-version"


def version_headers(served: ServedModel | None) -> list[tuple[bytes, bytes]]:
    """Return that header, if the model of a request is known."""
    return [] if served is None else [(VERSION, b"%d" % served.version)]
