"""A container engine, podman or Docker, and what it needs to build and run the image here.

Where no registry can be reached, a stand-in for the base image is made of Debian's packages: the
same system and Python release, in /usr instead of /usr/local. Podman on a machine without systemd
(a virtual machine that runs CI, say) needs other settings than its package has.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from msgspec import Struct

ROOT = Path(__file__).parents[3]
GENUINE = "docker.io/library/python:3.11-slim-bookworm"  # as the Dockerfile says
STAND_IN = "localhost/python-stand-in:3.11-bookworm"
IMAGE = "localhost/torchlit:check"
PORT = 8080  # in the image
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

_STAND_IN_HOOK = """#!/bin/sh
set -e
for name in python python3 python3.11; do ln -sf /usr/bin/python3.11 "$1/usr/local/bin/$name"; done
for name in pip pip3 pip3.11; do ln -sf /usr/bin/pip3 "$1/usr/local/bin/$name"; done
rm -f "$1/usr/lib/python3.11/EXTERNALLY-MANAGED" "$1/etc/hostname"
: > "$1/etc/resolv.conf"
"""
_STAND_IN_PACKAGES = "apt,ca-certificates,netbase,tzdata,python3,python3-venv,python3-pip"


class Layer(Struct, frozen=True):
    """A layer of an image: what made it, and its size in bytes."""

    made_by: str
    size: int


class Engine:
    """The program, and the environment that it is run with."""

    def __init__(self, folder: Path) -> None:
        """Take the program that CONTAINER_ENGINE names, else podman, else Docker."""
        wanted = os.environ.get("CONTAINER_ENGINE")
        found = [each for each in ([wanted] if wanted else ["podman", "docker"]) if _which(each)]
        if not found:
            raise FileNotFoundError(f"expected {wanted or 'podman or docker'} on PATH, got none")
        self.name = found[0]
        self.is_podman = self.name == "podman"
        self.base = GENUINE
        self._folder = folder
        self._environ = dict(os.environ)
        if self.is_podman and not Path("/run/systemd/system").exists():
            self._environ |= _without_systemd(folder)

    def __call__(
        self, *arguments: str, check: bool = True, timeout: float = 60, **more: Any
    ) -> str:
        """Run a command of the engine; return what it prints, of which stderr too on failure."""
        done = self.run(*arguments, timeout=timeout, **more)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(
        self, *arguments: str, timeout: float = 60, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine, `text` being its input."""
        return subprocess.run(
            [self.name, *arguments],
            cwd=self._folder,  # podman leaves a file there when a container runs out of memory
            env=self._environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    @property
    def locked_down(self) -> tuple[str, ...]:
        """Options of `run`: nothing may be written, no capability, few processes."""
        # Podman would mount /tmp, /run and /var/tmp to write in.
        podman = ("--read-only-tmpfs=false",) if self.is_podman else ()
        options = ("--cap-drop=all", "--security-opt=no-new-privileges", "--pids-limit=64")
        return ("--read-only", *podman, *options)

    def need_base(self) -> None:
        """Have the base image: from here, from a registry, or the stand-in for it."""
        for base in (GENUINE, STAND_IN):
            if self.run("image", "inspect", base).returncode == 0:
                self.base = base
                return
            if base == GENUINE and self.run("pull", "--quiet", base, timeout=300).returncode == 0:
                self.base = base
                return
        self._make_stand_in()
        self.base = STAND_IN

    def _make_stand_in(self) -> None:
        hook, archive = self._folder / "hook", self._folder / "base.tar"
        hook.write_text(_STAND_IN_HOOK)
        hook.chmod(0o755)
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("man", "locale")]
        subprocess.run(
            [
                *("mmdebstrap", "--mode=root", "--variant=essential", "--format=tar", "--quiet"),
                *(f"--include={_STAND_IN_PACKAGES}", *excluded),
                *(f'--customize-hook={hook} "$1"', "bookworm", str(archive)),
            ],
            check=True,
            timeout=300,
        )
        path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        changes = ["--change", f"ENV {path}", "--change", "ENV LANG=C.UTF-8"]
        self("import", *changes, str(archive), STAND_IN, timeout=120)
        archive.unlink()

    def build(self) -> None:
        """Build the Dockerfile's default target as IMAGE. The machine's certificates are lent."""
        options = ["--tag", IMAGE, f"--build-arg=PYTHON_IMAGE={self.base}"]
        if self.is_podman:
            options += ["--format=docker", "--pull=never"]
            if CERTIFICATES.exists():
                options += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        self("build", *options, str(ROOT), timeout=600)

    def layers(self, image: str) -> list[Layer]:
        """Return the layers of an image, the last first."""
        if self.is_podman:
            listed = json.loads(self("history", "--format=json", image))
            return [Layer(made_by=each["CreatedBy"], size=each["size"]) for each in listed]
        lines = self(
            "history", "--no-trunc", "--human=false", "--format={{.Size}} {{.CreatedBy}}", image
        )
        pairs = [line.split(" ", 1) for line in lines.splitlines()]
        return [Layer(made_by=made_by, size=int(size)) for size, made_by in pairs]

    @contextlib.contextmanager
    def running(
        self, *options: str, arguments: tuple[str, ...] = (), **settings: object
    ) -> Iterator["Container"]:
        """Run the image with these options, arguments and TORCHLIT_ settings; then remove it."""
        environ = [f"--env=TORCHLIT_{name.upper()}={value}" for name, value in settings.items()]
        identity = self("run", "--detach", *options, *environ, IMAGE, *arguments).split()[-1]
        try:
            yield Container(self, identity)
        finally:
            self("rm", "--force", "--volumes", identity, check=False)


class Container:
    """A running container of the image."""

    def __init__(self, engine: Engine, identity: str) -> None:
        self.engine = engine
        self.identity = identity

    @property
    def log(self) -> str:
        """What it has said so far."""
        done = self.engine.run("logs", self.identity)
        return done.stdout + done.stderr

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.engine("inspect", self.identity))[0]
        return found

    def exec(self, *command: str, text: str = "") -> str:
        """Run a command in it, with `text` as its input; return what it prints."""
        return self.engine("exec", "--interactive", self.identity, *command, text=text)

    def python(self, code: str) -> str:
        """Run Python code in it."""
        return self.exec("/venv/bin/python", "-", text=code)

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Wait until it has said `text`."""
        until = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < until, f"{text!r} is not in {self.log}"
            time.sleep(0.1)

    def wait_until_ready(self, url: str, seconds: float = 30) -> None:
        """Wait until it says that it is ready."""
        until = time.monotonic() + seconds
        while not _is_ready(url):
            assert time.monotonic() < until, self.log
            time.sleep(0.01)

    def stop(self) -> int:
        """Stop it as an orchestrator does; return its exit status."""
        self.engine("stop", "--time=30", self.identity)
        return self.exit_status()

    def exit_status(self, seconds: float = 30) -> int:
        """Wait until it has ended; return its exit status."""
        return int(self.engine("wait", self.identity, timeout=seconds).split()[-1])


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    return False


def _which(program: str) -> bool:
    return shutil.which(program) is not None


def _without_systemd(folder: Path) -> dict[str, str]:
    """Return the environment in which podman runs where nothing but a kernel is.

    runc, as crun wants control groups of one version; limits no higher than this process may set;
    no timers for health checks, which are asked for by hand.
    """
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    if processes == resource.RLIM_INFINITY or processes > most:
        processes = most
    settings = folder / "containers.conf"
    settings.write_text(
        f"""
[containers]
default_ulimits = ["nofile={open_files}:{open_files}", "nproc={processes}:{processes}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
    )
    return {"CONTAINERS_CONF": str(settings), "DISABLE_HC_SYSTEMD": "true"}
