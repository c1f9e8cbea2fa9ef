"""What the bytes of a result depend on, but for the input."""

from importlib.metadata import version as version_of
from typing import TypeAlias

from service.engine.model import Model
from service.engine.providers import RUNTIME_VERSION, with_version
from service.settings import Settings

# By what it is, as the job of a Mark.
Identity: TypeAlias = dict[str, str | int | bool]


def identity_of(
    model: Model, settings: Settings, *, formats: str, keep: bool, strict: bool
) -> Identity:
    """Return what the bytes of a result depend on."""
    return {
        "the model": " ".join(each.sha256 for each in model.files),
        "the formats": formats,
        "--keep": keep,
        "--strict": strict,
        "TORCHLIT_MAX_BATCH_SIZE": settings.max_batch_size,
        "whether rows are run together": are_batched(model, settings),
        "what may be missing": " ".join(sorted(model.takes_missing)),
        "TORCHLIT_MAX_BODY_BYTES": settings.max_body_bytes,
        "TORCHLIT_MAX_IMAGE_PIXELS": settings.max_image_pixels,
        "the execution provider": with_version(model.provider),
        "the number of threads": model.threads,
        "torchlit": version_of("torchlit"),
        "ONNX Runtime": RUNTIME_VERSION,
        "Pillow": version_of("pillow"),
    }


def are_batched(model: Model, settings: Settings) -> bool:
    """Whether rows are run together: not where a full batch was not tried, or must not be.

    Of a model with large rows the largest batch depends on the machine, and answers in their last
    bit on the batch.
    """
    return model.is_batched and model.largest_batch == settings.max_batch_size
