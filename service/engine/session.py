"""An ONNX Runtime session for a file, or one sentence that says why there is none."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from service.engine.assignment import RECORD, assignment_of
from service.engine.contents import Contents
from service.engine.file import unreadable
from service.engine.providers import (
    CPU,
    RUNTIME_VERSION,
    available,
    choose_providers,
    device_of,
    plugin_devices,
    warn_once,
)
from service.errors import ModelError, OutOfResources, ServiceError, StartupError
from service.words import quoted

_REFUSED = "fallback to CPU EP has been explicitly disabled"  # ONNX Runtime's own words

# What ONNX Runtime says of a file that it does not open, and what to say to people.
_REASONS = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "IR version {0} is too new: ONNX Runtime {ort} opens {1} at most; export it with an older "
        "opset, or set `ir_version` with the onnx package if nothing newer is used",
    ),
    (
        r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)",
        "opset {0} of {1} is too new: ONNX Runtime {ort} opens {2} at most; export it with "
        "opset_version={2}, or convert it with onnx.version_converter",
    ),
    (
        r"Failed to construct locale with name:(([^:.]+)[^:]*):",
        "it needs the locale {0}, which this machine has not: install it (Debian: package "
        "locales, then localedef -i {1} -f UTF-8 {0})",
    ),
    (
        r"(\S+):(\S+?)\(-?\d+\) is not a registered function/op",
        "it needs the operator {1} of {0}, which ONNX Runtime {ort} has not; libraries of custom "
        "operators are not loaded",
    ),
    (
        r"No Op registered for (\S+) with domain_version of (\d+)",
        "it needs the operator {0}, which opset {1} of ONNX Runtime {ort} has not",
    ),
    (
        r"Could not find an implementation for (\S+?)\(",
        "it needs the operator {0} for a type or version that ONNX Runtime {ort} has not",
    ),
    (r"[Pp]rotobuf parsing failed|No graph was found", "not a model that ONNX Runtime can open"),
)

# The same of what is short on this machine now: the file may be a good one.
_SHORT = (
    (
        r"CUDA failure 2\b|CUDA\w* .*out of memory|\w+_STATUS_ALLOC_FAILED",
        "there is not enough memory on the GPU",
    ),
    (r"bad.?alloc|[Ff]ailed to allocate|[Oo]ut of memory", "there is not enough memory to open it"),
    (r"[Tt]oo many open files|system error number 2[34]", "too many files are open to open it"),
    (r"pthread_create|[Rr]esource temporarily unavailable", "no thread can be started for it"),
)

_ENCODERS = {"OneHotEncoder", "CategoryMapper", "LabelEncoder"}  # they fail for what is new to them
_FAILED_RUN = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : (\w+) : "
    r"(?:Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: )?",
    re.DOTALL,
)


class _FellBack(Exception):
    """Nodes of a session run on the CPU where none may; `session` says which."""

    def __init__(self, session: ort.InferenceSession) -> None:
        super().__init__(_REFUSED)
        self.session = session


def open_session(
    contents: Contents,
    *,
    device: str,
    threads: int,
    is_optimized: bool = True,
    may_fall_back: bool = True,
) -> ort.InferenceSession:
    """Open a model that was read, and its weights.

    is_optimized: whether ONNX Runtime may rewrite the graph.
    may_fall_back: whether nodes that `device` has no operator for may run on the CPU.
    Raises ModelError that says why it cannot be opened, OutOfResources if that may pass;
    StartupError when `device` is one and ONNX Runtime runs it elsewhere.
    """
    providers = choose_providers(device, available())
    has_fallen = False
    try:
        data = contents.weights
        has_inner_weights = contents.file.has_inner_weights

        def options(*, refuses: bool) -> ort.SessionOptions:
            made = _options(threads, is_optimized, providers[0], refuses=refuses)
            if not has_inner_weights:
                made.add_external_initializers_from_files_in_memory(
                    list(data), list(data.values()), [len(each) for each in data.values()]
                )
            return made

        refuses = not may_fall_back and providers != [CPU]
        if has_inner_weights:
            session = _of_a_copy(contents, options, providers, refuses=refuses)
        else:
            session = _session(contents.own, options, providers, refuses=refuses)
    except ServiceError:
        raise
    except _FellBack as error:
        session, has_fallen = error.session, True
    except Exception as error:  # ONNX Runtime raises its own, undocumented classes
        if short_of := what_is_short(error):
            raise OutOfResources(f"{contents.name}: {short_of}") from error
        raise ModelError(f"{contents.name}: {_reason(str(error))}") from error
    if device not in ("auto", device_of(session.get_providers()[0])):
        raise StartupError(
            f"TORCHLIT_DEVICE: expected {device}, but ONNX Runtime cannot run on it here; "
            "install the gpu extra and a driver, or use auto or cpu"
        )
    if has_fallen:
        where = assignment_of(session)
        raise ModelError(f"{contents.name}: TORCHLIT_FALLBACK is refuse, but it would run {where}")
    return session


def _options(
    threads: int, is_optimized: bool, provider: str, *, refuses: bool
) -> ort.SessionOptions:
    """Return what a session is opened with, but for its weights."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says is in the exception too
    if not is_optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(RECORD, "1")
    if refuses:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if devices := plugin_devices(provider):
        options.add_provider_for_devices(devices, {})
    return options


def _of_a_copy(
    contents: Contents,
    options: Callable[..., ort.SessionOptions],
    providers: list[str],
    *,
    refuses: bool,
) -> ort.InferenceSession:
    """Open a copy of a model and its weights, which nobody else can change.

    Of graphs inside nodes ONNX Runtime 1.31 takes no weights from memory: it maps their files.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / contents.name
            for name, content in {contents.name: contents.own, **contents.weights}.items():
                place = copy.parent / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            return _session(copy, options, providers, refuses=refuses)
    except OSError as error:
        sentence = (
            f"{contents.name}: it has graphs with weights in other files, and no place to copy "
            f"them to ({error.strerror}): set TMPDIR to a folder that can be written"
        )
        raise unreadable(error, sentence) from error


def _session(
    source: Path | bytes,
    options: Callable[..., ort.SessionOptions],
    providers: list[str],
    *,
    refuses: bool,
) -> ort.InferenceSession:
    """Open a file, or its bytes; on the CPU where another provider cannot be used.

    ONNX Runtime does that by itself, for good, also where a device is only short of memory, and in
    a run that a provider could not do.

    options: makes those of a session, and says whether it `refuses` nodes on the CPU.
    Raises _FellBack where it does and there are some; StartupError for a plug-in that cannot run.
    """
    is_plugin = bool(plugin_devices(providers[0]))
    # A plug-in is in the options; ONNX Runtime passes over its name here, without a word. Where
    # the CPU is refused it must not be named.
    names = None if is_plugin else providers[:1] if refuses else providers
    try:
        session = ort.InferenceSession(
            source, options(refuses=refuses), providers=names, enable_fallback=0
        )
    except (ValueError, RuntimeError) as error:
        if providers == [CPU] or what_is_short(error):
            raise
        if is_plugin:
            raise StartupError(
                f"TORCHLIT_PROVIDER: expected {device_of(providers[0])}, but ONNX Runtime cannot "
                f"run on it here: {short(error)}"
            ) from error
        session = ort.InferenceSession(source, options(refuses=False), providers=[CPU])
        warn_once(f"{providers[0]} cannot be used: {short(error)}: models run on the CPU")
    except Exception as error:
        if not refuses or _REFUSED not in str(error):
            raise
        names = None if is_plugin else providers
        raise _FellBack(
            ort.InferenceSession(source, options(refuses=False), providers=names, enable_fallback=0)
        ) from error
    session._model_bytes = None  # which it keeps else, and never needs
    return session


def what_is_short(error: BaseException | None) -> str:
    """Say what was short on this machine when ONNX Runtime raised `error`, nothing if nothing."""
    if isinstance(error, MemoryError):
        return "there is not enough memory to open it"
    found = (sentence for pattern, sentence in _SHORT if re.search(pattern, str(error), re.DOTALL))
    return next(found, "")


def _reason(text: str) -> str:
    for pattern, sentence in _REASONS:
        if found := re.search(pattern, text, re.DOTALL):
            return sentence.format(*found.groups(), ort=RUNTIME_VERSION)
    return f"ONNX Runtime {RUNTIME_VERSION} cannot open it"


def what_failed(error: Exception) -> str:
    """Return what failed in a run, and where, for the log.

    Nothing of the rest of ONNX Runtime's text, which has values that a caller sent.
    """
    found = _FAILED_RUN.match(str(error))
    if found is None:
        return type(error).__name__
    status, operator, name = found.groups()
    where = f" in {operator} {quoted(name)}" if name else f" in {operator}"
    return f"ONNX Runtime: {status}{where if operator else ''}"


def knows_not(error: Exception) -> str:
    """Return the operation that does not know a value that went in, "" if it was another reason.

    scikit-learn's encoders refuse what was not in their training, unless they are told otherwise.
    """
    found = _FAILED_RUN.match(str(error))
    return found[2] if found is not None and found[2] in _ENCODERS else ""


def short(error: Exception) -> str:
    """Return what ONNX Runtime said of a run, without the names of its own source files."""
    text = " ".join(str(error).split())
    text = re.sub(
        r"^(.*Error creating execution provider: )?\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text
    )
    text = re.sub(
        r"Non-zero status code .* running (\w+) node\. .*?Status Message: ", r"\1: ", text
    )
    text = re.sub(r"/\S+onnxruntime/\S+:\d+ [^)]*\)( const)? ", "", text)
    text = re.sub(r"^/\S+onnxruntime/\S+:\d+ .* was false\. ", "", text)
    return text if len(text) <= 160 else text[:160] + "..."
