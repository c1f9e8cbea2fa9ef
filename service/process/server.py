"""Processes: take the port, run one worker or several, stop them without losing a request.

The parent of several workers only waits for signals, and sees now and then whether the event
loops of the workers have their turns. It imports nothing heavy before it forks, so that a worker
that replaces another starts as the first one did.
"""

import contextlib
import logging
import mmap
import os
import resource
import select
import signal
import socket
from collections.abc import Iterable, Mapping
from math import inf
from time import monotonic

import msgspec
from msgspec import Struct

from service.errors import StartupError
from service.logs import lines as logs
from service.process.folder import metrics_folder
from service.process.signals import GRACE_S, HANDLED, STOPPING, Terminal, longest_stop_s
from service.settings import Settings, machine
from service.settings.port import bind
from service.tracing import is_wanted, why_not

logger = logging.getLogger("torchlit.server")

CANNOT_START, FAILED = 1, 70  # exit statuses of a worker
CHECKS = 3  # of a worker that is silent, before it is taken for hung
HASTY_S = 1.0  # a worker that died younger than this is replaced only after as long


class Worker(Struct):
    """A forked process: which of the workers it is, and since when (monotonic seconds)."""

    number: int
    since: float
    beat: float = 0.0  # that was seen last
    silent: int = 0  # checks in a row that saw no other


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError when that cannot begin."""
    logs.configure(settings)
    try:
        _serve(settings)
    finally:
        logging.shutdown()  # what waits to be written is


def _serve(settings: Settings) -> None:
    available = machine.available()
    logger.info(
        "%s: workers: %d, threads of a slow model in each: %d",
        *(available, settings.workers, available.threads(settings.workers)),
    )
    if is_wanted(os.environ) and (sentence := why_not(os.environ)):
        logger.warning("no traces are sent: %s", sentence)
    _allow_open_files(settings)
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # until there is somebody to handle them
    with bind(settings) as listener:
        host, port = listener.getsockname()[:2]
        where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if settings.workers == 1:
            from service.process import worker  # here, as the parent of several needs none of it

            if settings.metrics_dir is not None:
                with metrics_folder(settings):  # not used, but refused as it is with several
                    settings = msgspec.structs.replace(settings, metrics_dir=None)
            worker.run(settings, listener, where, 0, None)
            return
        with metrics_folder(settings) as folder:
            settings = msgspec.structs.replace(settings, metrics_dir=folder)
            supervise(settings, listener, where)


def _allow_open_files(settings: Settings) -> None:
    """Let a worker open as many files as its connections may need; warn if it may not."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + machine.OTHER_FILES
    if now == resource.RLIM_INFINITY or now >= needed:
        return
    allowed = needed if most == resource.RLIM_INFINITY else min(needed, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    if allowed < needed:
        logger.warning(
            "TORCHLIT_MAX_CONNECTIONS: %d need %d open files, %d are allowed (ulimit -n)",
            *(settings.max_connections, needed, allowed),
        )


def supervise(settings: Settings, listener: socket.socket, where: str) -> None:
    """Fork the workers, replace those that die, have them reload, stop them when told to.

    Raises StartupError when one ends before any has served: no other would do better.
    HANDLED are blocked when this is called.
    """
    alive, held = os.pipe()  # the workers notice when `held` closes, however this process ends
    serves, serving = os.pipe()  # the workers write a byte when they serve
    whys, why = os.pipe()  # a worker that cannot start writes the sentence
    beats = memoryview(mmap.mmap(-1, 8 * settings.workers)).cast("d")  # by number, 0: not yet
    hung_s = settings.request_timeout_s + GRACE_S  # silence of a worker that is replaced
    until = inf  # workers that still run then are killed
    workers: dict[int, Worker] = {}  # by process id

    def start(number: int, *, is_replacing: bool = False) -> None:
        beats[number] = 0.0
        pid = os.fork()
        if pid == 0:
            os.close(held)
            pipes = alive, serving, why
            status = _worker_status(
                settings, listener, where, number, pipes, beats, is_replacing=is_replacing
            )
            logging.shutdown()
            os._exit(status)
        workers[pid] = Worker(number, monotonic())

    for number in range(settings.workers):
        start(number)
    terminal = Terminal()
    stopping = has_served = False
    failed = ""
    while workers:
        info = signal.sigtimedwait(HANDLED, min(hung_s / CHECKS, max(0.0, until - monotonic())))
        received = None if info is None else info.si_signo
        if monotonic() >= until:
            _signal(workers, signal.SIGKILL)
            until = inf
        elif received is None and not stopping:
            _kill_hung(workers, beats)
        if received == signal.SIGHUP and terminal.is_gone():
            received = signal.SIGTERM
        ended = {pid: (workers.pop(pid), status) for pid, status in _reap(workers).items()}
        said = _lines(whys) if ended else []
        if ended:  # the pipe is emptied: a full one would stop the next worker
            has_served = bool(_lines(serves)) or has_served
        if ended and not stopping and not has_served:
            failed = said[0] if said else "a worker could not start"  # its log says why
        if not stopping and (failed or received in STOPPING):
            stopping = True
            until = monotonic() + longest_stop_s(settings) + 1  # they end themselves before
            listener.close()  # when the last worker closes its own, the port is free
            _signal(workers, signal.SIGTERM)
        elif received == signal.SIGHUP:
            _signal(workers, signal.SIGHUP)
        elif stopping and received == signal.SIGINT:  # a second Ctrl-C: immediately
            _signal(workers, signal.SIGKILL)
        if stopping:
            continue
        for sentence in said:
            logger.error("a worker could not start: %s", sentence)
        for pid, (worker, status) in ended.items():
            logger.error("worker %d (process %d) ended with %d", worker.number, pid, status)
            if monotonic() - worker.since < HASTY_S and _is_stopped_within(HASTY_S):
                os.kill(os.getpid(), signal.SIGTERM)  # for the next turn of this loop
            start(worker.number, is_replacing=True)
    if failed:
        raise StartupError(failed)


def _worker_status(
    settings: Settings,
    listener: socket.socket,
    where: str,
    number: int,
    pipes: tuple[int, int, int],
    beats: "memoryview[float]",
    *,
    is_replacing: bool,
) -> int:
    """Run a worker in a forked process; return its exit status."""
    alive, serving, why = pipes
    try:
        from service.process import worker

        parent = worker.Parent(alive, serving, beats, is_replacing)
        worker.run(settings, listener, where, number, parent)
    except StartupError as error:
        os.write(why, str(error).replace("\n", " ").encode() + b"\n")
        return CANNOT_START
    except BaseException:
        logger.exception("worker %d: this is a bug", number)
        return FAILED
    return 0


def _reap(workers: Iterable[int]) -> dict[int, int]:
    """Return the exit status of each worker that ended, by process id, without waiting."""
    statuses = {pid: os.waitpid(pid, os.WNOHANG) for pid in workers}
    return {
        pid: os.waitstatus_to_exitcode(status) for pid, (ended, status) in statuses.items() if ended
    }


def _readable(pipe: int) -> bool:
    """Say whether something was ever written to `pipe`; it stays there."""
    readable, _, _ = select.select([pipe], [], [], 0)
    return bool(readable)


def _lines(pipe: int) -> list[str]:
    """Return the lines that were written to `pipe` since it was read last."""
    text = b""
    while _readable(pipe):
        text += os.read(pipe, 65_536)
    return text.decode().splitlines()


def _is_stopped_within(seconds: float) -> bool:
    return signal.sigtimedwait(STOPPING, seconds) is not None


def _kill_hung(workers: Mapping[int, Worker], beats: "memoryview[float]") -> None:
    """Kill the workers whose event loops had no turn between the last CHECKS calls.

    Calls are counted, not seconds: after the machine slept the workers have their turns first.
    """
    for pid, worker in workers.items():
        beat = beats[worker.number]
        worker.silent = worker.silent + 1 if beat and beat == worker.beat else 0
        worker.beat = beat
        if worker.silent >= CHECKS:
            logger.error("worker %d (process %d) hangs, and is replaced", worker.number, pid)
            _signal([pid], signal.SIGKILL)


def _signal(workers: Iterable[int], number: signal.Signals) -> None:
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
