"""What the image is made of: `make sbom`, `make scan`, `make licences`.

    PYTHONPATH=tests .venv/bin/python -m container.supply_chain sbom FOLDER    two files, by syft
    PYTHONPATH=tests .venv/bin/python -m container.supply_chain scan           by pip-audit
    PYTHONPATH=tests .venv/bin/python -m container.supply_chain licences       LICENCES.md

SYFT and PIP_AUDIT name the programs. Each command builds the image first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.system.container.engine import GENUINE, IMAGE, ROOT, Engine

LICENCES = ROOT / "deploy/image/LICENCES.md"

# Run in the image: [name, version, licence] of each Python package there. An expression is SPDX;
# `License` may hold a name or a whole text, a classifier ends with a name, a text begins with one.
READ = r"""
import importlib.metadata, json

def licence(package):
    metadata = package.metadata
    classifiers = [each for each in metadata.get_all("Classifier") or [] if "License ::" in each]
    files = [each for each in package.files or [] if each.name.upper().startswith("LICENSE")]
    names = [metadata["License-Expression"], metadata["License"]]
    names += [each.rpartition(" :: ")[2] for each in classifiers[:1]]
    texts = [each.read_text() for each in files[:1]]
    names += ["MIT" for each in texts if "Permission is hereby granted, free of charge" in each]
    names += texts
    return next((name.strip().splitlines()[0] for name in names if name and name.strip()), "")

found = {each.name: [each.name, each.version, licence(each)]
         for each in importlib.metadata.distributions()}
print(json.dumps([found[name] for name in sorted(found, key=str.lower)]))
"""

ABOVE = """# Licences of what the image holds

Written by `make licences`. The texts are in the image: those of Python packages beside them below
/venv and /app, those of Debian's packages, the base image's, in /usr/share/doc/*/copyright. `make
sbom` lists all packages. The target `gpu` has, instead of onnxruntime, onnxruntime-gpu (MIT) and
NVIDIA's CUDA libraries (nvidia-*, deploy/image/constraints-gpu.txt), which are under NVIDIA's own
licence agreements and not open source.

| Python package | version | licence |
| --- | --- | --- |
"""


def packages(engine: Engine) -> list[tuple[str, str, str]]:
    """Return name, version and licence of the Python packages in the image."""
    options = ("--rm", "--network=none", "--entrypoint=/venv/bin/python")
    found: list[tuple[str, str, str]] = json.loads(engine("run", *options, IMAGE, "-c", READ))
    return [(name, version, licence) for name, version, licence in found]


def licences(engine: Engine) -> str:
    """Return what LICENCES.md is to say."""
    rows = [f"| {' | '.join(each)} |" for each in packages(engine)]
    return ABOVE + "\n".join(rows) + "\n"


def sbom(engine: Engine, folder: Path) -> None:
    """Write what is in the image as CycloneDX and SPDX."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        archive = Path(temporary) / "image.tar"
        engine("save", "--output", str(archive), IMAGE, timeout=300)
        outputs = {"cyclonedx-json": "torchlit.cdx.json", "spdx-json": "torchlit.spdx.json"}
        written = {Path(temporary) / name: folder / name for name in outputs.values()}
        options = [f"--output={form}={temporary}/{name}" for form, name in outputs.items()]
        name = ("--source-name=torchlit", f"--source-version={version(engine)}")
        syft = os.environ.get("SYFT", "syft")
        source = f"docker-archive:{archive}"
        environ = os.environ | {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
        subprocess.run([syft, "scan", source, *name, "--quiet", *options], env=environ, check=True)
        for new, path in written.items():
            json.loads(new.read_text())
            new.replace(path)
            print(path)


def version(engine: Engine) -> str:
    """Return the version of torchlit in the image."""
    return next(version for name, version, _ in packages(engine) if name == "torchlit")


def scan(engine: Engine) -> int:
    """Look the image's Python packages up in PyPI's advisories; 0 if none has one."""
    others = [each for each in packages(engine) if each[0] != "torchlit"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version, _ in others)
        file.flush()
        audit = os.environ.get("PIP_AUDIT", "pip-audit")
        options = ("--strict", "--no-deps", "--disable-pip", "--requirement", file.name)
        return subprocess.run([audit, *options], check=False).returncode


def main() -> int:
    """Run one of the commands; return the exit status."""
    parser = argparse.ArgumentParser(description="What the image is made of.")
    parser.add_argument("command", choices=["sbom", "scan", "licences"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        engine.need_base()
        if engine.base != GENUINE:
            print(f"no registry can be reached: the base image is {engine.base}", file=sys.stderr)
        engine.build()
        if arguments.command == "scan":
            return scan(engine)
        if arguments.command == "sbom":
            sbom(engine, arguments.folder)
        else:
            LICENCES.write_text(licences(engine))
            print(LICENCES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
