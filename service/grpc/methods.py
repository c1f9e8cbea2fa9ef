"""Every method but ModelInfer: THE table of methods, and what each answers.

What is said of models is that of HTTP (v2/metadata.py), in the protocol's messages.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec
from google.protobuf import json_format
from msgspec import Struct

from service.catalog.served import ServedModel
from service.entrance.services import Services
from service.errors import NotFound, NotSupported, Unavailable
from service.grpc.messages import HEALTH, SERVICE, Message, answer_of, request_of
from service.v2 import metadata as v2
from service.words import quoted

INFER = f"/{SERVICE}/ModelInfer"
WATCH = f"/{HEALTH}/Watch"
MOST_BYTES = 65_536  # of a message, which is parsed in the event loop
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3  # HealthCheckResponse.ServingStatus

# What a method answers: fields of its message, or the message.
Answered: TypeAlias = dict[str, Any]
Said: TypeAlias = Callable[[Services, Message], Answered | Awaitable[Answered]]


class Method(Struct, frozen=True):
    """One row of the table."""

    request: Message
    answer: Message
    said: Said
    is_control: bool = False  # of what is loaded; not served everywhere
    is_probe: bool = False  # needs a key only where health does; is answered when all is full


def _named(services: Services, message: Message) -> ServedModel:
    return services.catalog.named(message.name, message.version or None)


def _live(services: Services, message: Message) -> Answered:
    return {"live": True}


def _ready(services: Services, message: Message) -> Answered:
    return {"ready": services.is_ready}


def _server_metadata(services: Services, message: Message) -> Answered:
    return _fields(v2.server_metadata(services.settings))


def _model_ready(services: Services, message: Message) -> Answered:
    try:
        return {"ready": not _named(services, message).why_not_ready}
    except (NotFound, Unavailable):  # as Triton has it; its client would raise
        return {"ready": False}


def _model_metadata(services: Services, message: Message) -> Answered:
    return _fields(v2.metadata(services.catalog, _named(services, message)))


def _model_config(services: Services, message: Message) -> Answered:
    return {"config": _fields(v2.config_of(_named(services, message), services.settings))}


async def _statistics(services: Services, message: Message) -> Answered:
    served = v2.counted_versions(services.catalog, message.name, message.version or None)
    return _fields(await asyncio.to_thread(v2.statistics_of, services.metrics, served))


def _index(services: Services, message: Message) -> Answered:
    unloaded = services.reloader.unloaded
    entries = v2.index_of(services.catalog, unloaded, only_ready=message.ready)
    return {"models": [_fields(each) for each in entries]}


async def _load(services: Services, message: Message) -> Answered:
    v2.check_load(message.parameters)
    await services.reloader.load(_loaded(message))
    return {}


async def _unload(services: Services, message: Message) -> Answered:
    await services.reloader.unload(_loaded(message))
    return {}


def _loaded(message: Message) -> str:
    """Return the name of a model; in KServe's own file it is where Triton's has a repository."""
    name: str = message.model_name or message.repository_name
    return name


def _health(services: Services, message: Message) -> Answered:
    return {"status": health_of(services, message.service)}


def health_of(services: Services, name: str) -> int:
    """Return the state of the service, or of the model with that name. Raises NotFound."""
    if name in ("", SERVICE):
        return SERVING if services.is_ready else NOT_SERVING
    try:
        served = services.catalog.get(name)
    except Unavailable:
        return NOT_SERVING
    return NOT_SERVING if served.why_not_ready else SERVING


def _fields(said: Struct) -> Answered:
    fields: Answered = msgspec.to_builtins(said)
    return fields


def _method(service: str, name: str, said: Said, **kind: bool) -> Method:
    return Method(request_of(service, name), answer_of(service, name), said, **kind)


_ours = partial(_method, SERVICE)
METHODS: dict[str, Method] = {
    f"/{SERVICE}/ServerLive": _ours("ServerLive", _live, is_probe=True),
    f"/{SERVICE}/ServerReady": _ours("ServerReady", _ready, is_probe=True),
    f"/{SERVICE}/ServerMetadata": _ours("ServerMetadata", _server_metadata),
    f"/{SERVICE}/ModelReady": _ours("ModelReady", _model_ready),
    f"/{SERVICE}/ModelMetadata": _ours("ModelMetadata", _model_metadata),
    f"/{SERVICE}/ModelConfig": _ours("ModelConfig", _model_config),
    f"/{SERVICE}/ModelStatistics": _ours("ModelStatistics", _statistics),
    f"/{SERVICE}/RepositoryIndex": _ours("RepositoryIndex", _index),
    f"/{SERVICE}/RepositoryModelLoad": _ours("RepositoryModelLoad", _load, is_control=True),
    f"/{SERVICE}/RepositoryModelUnload": _ours("RepositoryModelUnload", _unload, is_control=True),
    f"/{HEALTH}/Check": _method(HEALTH, "Check", _health, is_probe=True),
}
PROBES = frozenset({WATCH, *(path for path, each in METHODS.items() if each.is_probe)})
WatchRequest = request_of(HEALTH, "Watch")

# What is known and not served, by the words in a path.
_NOT_SERVED = {
    "ModelStreamInfer": "streams of inferences are not served; use ModelInfer",
    "SharedMemory": "shared memory is not served",
    "TraceSetting": "traces are not served",
    "LogSettings": "the settings of logs stand in the environment",
    "ServerReflection": "reflection is not served; service/grpc/protocol has the .proto files",
}


def unknown(path: str) -> NotSupported:
    """Return what to raise for a path that is no method's."""
    for word, sentence in _NOT_SERVED.items():
        if word in path:
            return NotSupported(sentence)
    return NotSupported(f"{quoted(path)}: no such method of {SERVICE} or {HEALTH}")


def message_of(method: Method, answered: Answered) -> bytes:
    """Return what a method answers as it is sent."""
    written: bytes = json_format.ParseDict(answered, method.answer()).SerializeToString()
    return written


def health_message(status: int) -> bytes:
    """Return a message of Watch."""
    return message_of(METHODS[f"/{HEALTH}/Check"], {"status": status})
