"""`python -m service doctor`: what would run here, on what, and what is wrong.

It changes nothing: it takes no port, and leaves the counters of a service that runs alone. It
loads every model anew, which takes the memory and the time that the service takes for it.
"""

import contextlib
import errno
import http.client
import json
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from service.commands.doctor_models import Finding, model_findings, runtime_findings, version
from service.commands.health import MOST_SHOWN, READY, ask, is_ours
from service.commands.terminal import Stdout
from service.errors import InvalidSetting, StartupError
from service.settings import OF_PLATFORMS, PREFIX, Settings, is_set, machine, variable_name
from service.settings.keys import keys, origins
from service.settings.machine import (
    BYTES_OF_A_WORKER,
    OTHER_FILES,
    Resources,
    temporary_folder,
)
from service.settings.port import bind
from service.settings.settings import as_text
from service.tracing import destinations, is_wanted, why_not
from service.words import plain

PACKAGES = (
    *("litestar", "uvicorn", "uvloop", "httptools", "numpy", "msgspec", "pysimdjson"),
    *("pillow", "prometheus-client", "watchfiles"),
)
TELEMETRY = "ORT_DISABLE_TELEMETRY"
ADVICE = {  # where the port cannot be taken, by errno
    errno.EACCES: "set TORCHLIT_PORT to one from 1024; those below need CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "end the program that has it (ss -tlnp), or set TORCHLIT_PORT to another",
    None: "set TORCHLIT_HOST to an address of this machine, as 127.0.0.1, or 0.0.0.0 for all",
}
MARKS = {"well": "ok   ", "note": "note ", "wrong": "WRONG"}


def examine(
    environ: Mapping[str, str], check_routes: Callable[[Settings], object], *, as_json: bool
) -> int:
    """Check everything and print it; return the exit status: 1 if something is wrong.

    check_routes: raises InvalidSetting for a route of the settings that hides another.
    Raises what `Stdout.write` raises.
    """
    findings = []
    for finding in scan_all(environ, check_routes):
        findings.append(finding)
        if not as_json:
            Stdout().line(plain(f"{MARKS[finding.state]}  {finding.topic}: {finding.text}"))
        if finding.advice and not as_json:
            Stdout().line(plain(f"       -> {finding.advice}"))
    wrong = sum(finding.state == "wrong" for finding in findings)
    if as_json:
        report = {"ok": not wrong, "findings": findings}
        Stdout().line(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        Stdout().line("all is well" if not wrong else f"{wrong} thing{'s' * (wrong > 1)} wrong")
    return 1 if wrong else 0


def scan_all(
    environ: Mapping[str, str], check_routes: Callable[[Settings], object]
) -> Iterator[Finding]:
    """Yield what is found."""
    yield from _python()
    available = machine.available()
    settings, findings = _settings(environ, check_routes)
    yield from _machine(available, settings)
    yield from runtime_findings(settings)
    yield _telemetry(environ)
    yield _traces(environ)
    yield from findings
    yield _access(settings)
    yield from model_findings(settings, available.threads(settings.workers))
    yield _port(settings)
    yield _open_files(settings)
    yield _counters(settings)


def _python() -> Iterator[Finding]:
    what = f"{platform.python_version()}, {sys.executable}, {platform.platform()}"
    yield Finding("python", "well", what)
    versions = {name: version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if not version]
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    yield Finding("packages", "well", f"torchlit {version('torchlit') or '?'}, {shown}")
    if missing:
        advice = "install the service anew: pip install '.[cpu]' -c constraints.txt"
        yield Finding("packages", "wrong", f"not installed: {', '.join(missing)}", advice)


def _machine(available: Resources, settings: Settings) -> Iterator[Finding]:
    topic, workers = "machine", settings.workers
    threads = f"threads of a slow model in each: {available.threads(workers)}"
    yield Finding(topic, "well", f"{available}; workers: {workers}, {threads}")
    needed = workers * BYTES_OF_A_WORKER
    memory = min(available.memory_bytes or sys.maxsize, available.physical_bytes)
    if memory < needed:
        mib = f"{needed >> 20} MiB"
        text = f"about {mib} are needed for workers: {workers}, there are {memory >> 20} MiB"
        fewer = f", or set TORCHLIT_WORKERS={available.workers}" if workers > 1 else ""
        yield Finding(topic, "wrong", text, f"give it {mib}{fewer}")
    elif workers > available.workers:
        more = f"{workers} workers share the CPUs of {available.workers}"
        yield Finding(topic, "note", f"{more}; TORCHLIT_WORKERS=auto takes as many as there are")


def _telemetry(environ: Mapping[str, str]) -> Finding:
    said = environ.get(TELEMETRY, "")
    if said not in ("", "0"):
        return Finding("telemetry", "well", f"off ({TELEMETRY}={said})")
    text = f"{TELEMETRY} is {said or 'unset'}: ONNX Runtime may report home"
    return Finding("telemetry", "note", text, f"set {TELEMETRY}=1")


def _traces(environ: Mapping[str, str]) -> Finding:
    if not is_wanted(environ):
        return Finding("traces", "well", "off")
    if sentence := why_not(environ):
        advice = "the service starts, and sends none, until that is mended"
        return Finding("traces", "wrong", sentence, advice)
    return Finding("traces", "well", f"spans go to {destinations(environ)}")


def _settings(
    environ: Mapping[str, str], check_routes: Callable[[Settings], object]
) -> tuple[Settings, list[Finding]]:
    """Return the settings, without those that do not fit, and what is found of them."""
    findings = []
    fitting = dict(environ)
    while True:
        try:
            settings = Settings.from_env(fitting)
            with contextlib.suppress(ImportError):  # as is reported above
                check_routes(settings)
            break
        except InvalidSetting as error:
            if not error.variable:
                raise
            advice = f"correct or unset {error.variable}"
            findings.append(Finding("settings", "wrong", str(error), advice))
            field = error.variable.removeprefix(PREFIX).lower()
            for name in (error.variable, *OF_PLATFORMS.get(field, ())):
                fitting.pop(name, None)
    defaults = Settings()
    changed = [
        f"{variable_name(field)}={_shown(field, value)}{_source(field, fitting)}"
        for field, value in msgspec.structs.asdict(settings).items()
        if value != getattr(defaults, field)
    ]
    findings.append(Finding("settings", "well", ", ".join(changed) or "those by default"))
    return settings, findings


def _shown(field: str, value: object) -> str:
    if field == "api_keys" or (field == "api_keys_file" and _may_be_a_key(value)):
        return "(not shown)"
    return as_text(value)


def _may_be_a_key(path: object) -> bool:
    """Whether what should be the path of a file with keys may be a key itself: as it is none."""
    return not os.path.exists(str(path))


def _source(field: str, environ: Mapping[str, str]) -> str:
    """Say which variable of a platform says a setting, if one does."""
    others = [name for name in OF_PLATFORMS.get(field, ()) if is_set(environ, name)]
    return f" ({others[0]})" if others and not is_set(environ, variable_name(field)) else ""


def _access(settings: Settings) -> Finding:
    try:
        count = len(keys(settings))
        origins(settings)
    except InvalidSetting as error:
        text = str(error)
        if _may_be_a_key(settings.api_keys_file):
            text = text.replace(f"{settings.api_keys_file}: ", "")
        return Finding("access", "wrong", text, "the service does not start like that")
    if count:
        return Finding("access", "well", f"API keys: {count}")
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        return Finding("access", "well", "no API key; only this machine can call")
    return Finding("access", "note", f"no API key: all who reach {settings.host} may call")


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    if settings.port == 0:
        return Finding("port", "well", f"{settings.host}, any that is free")
    known: list[str] = []
    with contextlib.suppress(InvalidSetting):
        known = keys(settings)
    try:
        status, body = ask(settings, READY, known)
    except (ConnectionRefusedError, socket.gaierror):
        return _free(settings)
    except OSError as error:
        other = f"something that gives no answer ({str(error).strip()})"
    except http.client.HTTPException as error:
        other = f"something that answers, but not as HTTP ({str(error).strip()})"
    else:
        if is_ours(status, body):
            who = f"{where}: torchlit {_version_there(settings, known)}".strip()
            return _ours(who, status, body)
        other = f"something else, which says {status}"
    advice = "end that program, or set TORCHLIT_PORT to another"
    return Finding("port", "wrong", f"{where} is taken by {other}", advice)


def _ours(who: str, status: int, body: str) -> Finding:
    if status == 200:
        return Finding("port", "well", f"{who} serves there and is ready")
    if status == 401:
        return Finding("port", "note", f"{who} serves there and wants another API key")
    text = f"{who} is not ready: {body[:MOST_SHOWN].strip()}"
    return Finding("port", "wrong", text, "its log says why; the models are checked above")


def _free(settings: Settings) -> Finding:
    """Take the port for a moment, without listening: nobody can connect meanwhile."""
    try:
        bind(msgspec.structs.replace(settings, reuse_port=True)).close()
    except StartupError as error:
        advice = ADVICE.get(getattr(error.__cause__, "errno", None), ADVICE[None])
        return Finding("port", "wrong", str(error), advice)
    return Finding("port", "well", f"{settings.host}:{settings.port} is free")


def _version_there(settings: Settings, known: list[str]) -> str:
    """Return which torchlit answers there, nothing if that cannot be said."""
    try:
        status, body = ask(settings, "/v2", known)
        document = json.loads(body) if status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    is_ours = isinstance(document, dict) and document.get("name") == "torchlit"
    return str(document.get("version", "")) if is_ours else ""


def _open_files(settings: Settings) -> Finding:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + OTHER_FILES
    if most == resource.RLIM_INFINITY or most >= needed:
        allowed = "any number" if most == resource.RLIM_INFINITY else most
        return Finding("open files", "well", f"{needed} needed at most, {allowed} allowed")
    setting = "TORCHLIT_MAX_CONNECTIONS="
    text = f"{setting}{settings.max_connections} need {needed}, {most} are allowed"
    more = f"allow more (ulimit -Hn, --ulimit=nofile={needed})"
    fewer = f"set {setting}{max(1, most - OTHER_FILES)}"
    return Finding("open files", "wrong", text, f"{more}, or {fewer}")


def _counters(settings: Settings) -> Finding:
    folder = settings.metrics_dir
    if folder is None and settings.workers == 1:
        return Finding("counters", "well", "in memory, as there is one worker")
    folder = folder or Path(temporary_folder())
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if os.path.exists(each))
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        advice = "set TORCHLIT_METRICS_DIR to a folder that can be written"
        text = f"{folder}: cannot be written: {error.strerror}"
        return Finding("counters", "wrong", text, advice)
    return Finding("counters", "well", f"{folder} can be written, {free >> 20:,} MiB are free")
