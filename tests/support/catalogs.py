"""A catalog that is filled from a folder, without HTTP."""

from collections.abc import Awaitable, Callable

from service.catalog.catalog import Catalog
from service.catalog.reload import Reloader, pause
from service.metrics import Blocks, Metrics
from service.settings import Settings


def reloader(settings: Settings, pause: Callable[[], Awaitable[None]] = pause) -> Reloader:
    """Return what opens the models of `settings.models_dir`, with metrics of its own."""
    catalog = Catalog(settings.models_dir, settings.default_model, settings.shadow.only_shadows)
    return Reloader(settings, catalog, Metrics(Blocks()), pause)
