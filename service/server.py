"""Processes: take the port, run one worker or several, stop without losing a request.

The parent of several workers only waits for signals. It imports nothing heavy before it forks,
so that a replaced worker starts as the first one did.
"""

import asyncio
import contextlib
import gc
import logging
import logging.config
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from service.errors import StartupError
from service.settings import Settings

logger = logging.getLogger("torchlit.server")

BACKLOG = 2048  # connections the kernel holds until they are accepted
GRACE_S = 5  # beyond the request timeout, for requests that were accepted before SIGTERM
CANNOT_START, FAILED = 1, 70  # exit statuses of a worker; the first said why
STOPPING = (signal.SIGTERM, signal.SIGINT)


def configure_logging() -> None:
    """Log the service's own lines and every library's warnings to stderr."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {"torchlit": {"level": "INFO"}},
        }
    )


def bind(settings: Settings) -> socket.socket:
    """Take the port before anything is loaded. Raises StartupError when it is in use."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"TORCHLIT_HOST, TORCHLIT_PORT: cannot listen on {settings.host}:{settings.port}: "
            f"{error.strerror}"
        ) from error
    listener.setblocking(False)
    return listener


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError when that cannot begin."""
    configure_logging()
    with bind(settings) as listener:
        host, port = listener.getsockname()[:2]
        where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if settings.workers == 1:
            run_worker(settings, listener, where)
        else:
            with tempfile.TemporaryDirectory(prefix="torchlit-metrics-") as folder:
                if settings.metrics_dir is None:
                    settings = msgspec.structs.replace(settings, metrics_dir=Path(folder))
                supervise(settings, listener, where)


def run_worker(
    settings: Settings, listener: socket.socket, where: str, number: int = 0, parent: int = -1
) -> None:
    """Run a worker in this process until it is told to stop, or its `parent` pipe closes."""
    import uvloop  # here, as the parent of several workers needs none of this

    uvloop.run(_run_worker(settings, listener, where, number, parent))


async def _run_worker(
    settings: Settings, listener: socket.socket, where: str, number: int, parent: int
) -> None:
    import uvicorn

    from service.app import create_app

    app = create_app(settings, worker=number)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",  # entered below, so that a failure to start is an exception
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.request_timeout_s) + GRACE_S,
    )
    server = uvicorn.Server(config)
    for each in STOPPING:  # uvicorn raises what it was sent once more, after the last answer
        signal.signal(each, server.handle_exit)
    if parent >= 0:  # readable when its other end closes: the parent is gone
        loop = asyncio.get_running_loop()
        loop.add_reader(parent, lambda: server.handle_exit(signal.SIGTERM, None))
    try:
        async with app.lifespan():
            gc.collect()
            gc.freeze()  # what is loaded stays; collecting it again took p99 from 4 ms to 15
            gc.set_threshold(50_000, 20, 100)
            logger.info("worker %d (process %d) serves %s", number, os.getpid(), where)
            await server.serve(sockets=[listener])
    except BaseExceptionGroup as group:  # litestar opens its lifespan in a task group
        if isinstance(group.exceptions[0], StartupError):
            raise group.exceptions[0] from None
        raise
    logger.info("worker %d (process %d) has answered all and stops", number, os.getpid())


def supervise(settings: Settings, listener: socket.socket, where: str) -> None:
    """Fork the workers, replace those that die, stop them when told to.

    Raises StartupError when a worker cannot start: the others could not either.
    """
    handled = {*STOPPING, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    parent, held = os.pipe()  # workers notice when `held` closes, however this process ends
    workers: dict[int, int] = {}  # process id -> number

    def start(number: int) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(held)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
            os._exit(_worker_status(settings, listener, where, number, parent))
        workers[pid] = number

    for number in range(settings.workers):
        start(number)
    failed = stopping = False
    while workers:
        received = signal.sigwait(handled)
        ended = _reap(workers)
        failed = failed or CANNOT_START in ended.values()
        if not stopping and (failed or received in STOPPING):
            stopping = True
            _tell(workers, signal.SIGTERM)
        for pid, status in ended.items():
            number = workers.pop(pid)
            if not stopping:
                logger.error("worker %d (process %d) ended with %d", number, pid, status)
                start(number)
    if failed:
        raise StartupError("a worker could not start")


def _worker_status(
    settings: Settings, listener: socket.socket, where: str, number: int, parent: int
) -> int:
    """Run a worker in a forked process; return its exit status."""
    try:
        run_worker(settings, listener, where, number, parent)
    except StartupError as error:
        print(f"torchlit: worker {number}: {error}", file=sys.stderr)
        return CANNOT_START
    except BaseException:
        logger.exception("worker %d: this is a bug", number)
        return FAILED
    return 0


def _reap(workers: Iterable[int]) -> dict[int, int]:
    """Return the exit status of each worker that ended, by process id, without waiting."""
    statuses = {pid: os.waitpid(pid, os.WNOHANG) for pid in workers}
    return {
        pid: os.waitstatus_to_exitcode(status) for pid, (done, status) in statuses.items() if done
    }


def _tell(workers: Iterable[int], number: signal.Signals) -> None:
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
