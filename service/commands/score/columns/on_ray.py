"""Actors of a Ray cluster in the place of worker processes.

Ray says where each is, and takes blocks there and answers back. It restarts nothing: an actor that
waits for room would keep its block, while others have nothing to do. Ray Data is not between, as a
dataset takes all its items before the first is answered.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from service.commands.score.columns.pool import Step
from service.commands.score.columns.shipped import Shipped
from service.commands.score.columns.worker import Result, Task, be_small
from service.errors import CannotScore

LOCAL = "local"  # what Ray calls one that it starts for a job
CONNECT_TIMEOUT_S = 10
STORE_BYTES = 256 * 2**20  # of that one
_PACKAGES = ("torchlit", "onnxruntime", "pyarrow", "numpy", "pillow")  # answers depend on them


class Answerer:
    """What happens in an actor. What is raised is returned, as Ray would wrap it."""

    def __init__(self, shipped: Shipped, folder: str) -> None:
        """Take a model, and the folder from which the paths of blocks are."""
        self._shipped = shipped
        self._folder = folder

    def open(self) -> dict[str, str] | Exception:
        """Open the model; return the versions of what it needs."""
        be_small()
        with suppress(OSError):  # no block has a path, or it says that there is no file
            os.chdir(self._folder)
        try:
            self._scorer = self._shipped.open()
        except Exception as error:
            return error
        return _versions()

    def answer(self, task: Task) -> Result | Exception:
        """Answer a block."""
        try:
            return task.run(self._scorer)
        except Exception as error:
            return error


class Actor:
    """An actor, and the step that it has, if any; as processes.Worker."""

    def __init__(self, actor: Any) -> None:
        """Take an actor that may still have to be placed."""
        self._actor = actor
        self._why = ""
        self.steps: list[Step[Any]] = []
        self.is_ready = False
        self.pipe = actor.open.remote()

    @property
    def has_room(self) -> bool:
        """Whether it takes a step."""
        return not self.steps

    def take(self, step: Step[Any]) -> None:
        """Begin with a step."""
        self.steps.append(step)
        self.pipe = self._actor.answer.remote(step.task)

    def answered(self) -> bool:
        """Receive the answer to its step, or that it is ready; return whether the actor lives.

        Raises ServiceError where it cannot begin.
        """
        try:
            answer = ray.get(self.pipe)
        except RayError as error:
            self._why = str(error).strip().partition("\n")[0]
            return False
        if self.steps:
            self.steps.pop().answer = answer
            return True
        if isinstance(answer, Exception):
            raise answer
        _check_versions(answer)
        self.is_ready = True
        return True

    def ended(self) -> str:
        """Say how its end was."""
        return self._why

    def stop(self) -> None:
        """End it, whatever it does."""
        ray.kill(self._actor)


class Actors:
    """Where actors are placed."""

    def __init__(self, shipped: Shipped) -> None:
        """Take the model, which is sent once to each machine."""
        of_class = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Answerer)
        self._place = partial(of_class.remote, ray.put(shipped), str(Path.cwd()))

    @property
    def cores(self) -> int:
        """How many actors there is room for."""
        return max(1, int(ray.cluster_resources().get("CPU", 0)))

    def start(self) -> Actor:
        """Start an actor."""
        return Actor(self._place())

    def wait(self, pipes: Sequence[Any]) -> Sequence[Any]:
        """Wait for at least one of what actors do; return what is done."""
        done, _ = ray.wait(list(pipes), num_returns=1, fetch_local=False)
        return list(done)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Have a cluster: that at an address, or of the environment, or one of this machine alone.

    Raises CannotScore where there is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    ours = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        _reach(where)
        ray.init(
            where,
            log_to_driver=False,
            logging_level="ERROR",
            **(ours if where == LOCAL else {}),
        )
    except (RayError, ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise CannotScore(f"--on: expected a cluster at {where}, got: {why}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens: Ray tries for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()


def _versions() -> dict[str, str]:
    return {each: version_of(each) for each in _PACKAGES}


def _check_versions(got: dict[str, str]) -> None:
    """Raise CannotScore where a machine would answer otherwise."""
    for name, version in _versions().items():
        if got[name] != version:
            raise CannotScore(f"--on: expected {name} {version} on each machine, got {got[name]}")
