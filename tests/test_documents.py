"""What the documents say is so: commands are run, links followed, tables compared.

Every fenced block of README.md and docs/ is of a kind that is checked here, or names commands that
need what a test has not (COMMANDS); `test_no_block_is_passed_over` holds that.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.support.processes import Process, running

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TRAINING = ROOT / "docs" / "training.md"
MOST_BYTES = 8192  # of README.md

ENGINES = ROOT / "docs" / "engines.md"  # whose blocks are run by tests/system/engines

# Whose blocks are run, and whose links are followed.
PAGES = [README, *sorted(set((ROOT / "docs").rglob("*.md")) - {ENGINES})]
LINKED = [
    *PAGES,
    ENGINES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "deploy").rglob("README.md")),
    ROOT / "benchmarks" / "NOTES.md",
]

# Commands that a test cannot run, as they take minutes or a machine. What they name must be there.
PYTHON = ".venv/bin/python"  # in the documents; here it is the one that runs the tests
COMMANDS = (
    *("make", "docker", "podman", "kubectl"),
    *(f"{PYTHON} -m benchmarks", f"{PYTHON} -m service card MODEL.onnx"),
)
OVER_GRPC = "tritonclient.grpc"  # what needs grpcio
SOME_BAD = 3  # the exit status of `score` that left rows out
SHOWN = "text"  # the language of what is only shown: figures and tables
GUIDE = "## Your own model in 30 lines"
SKLEARN_GUIDE = "## Your own scikit-learn model in ten lines"
ADDED = list(filter(None, [os.environ.get("PYTHONPATH")]))  # by `make test-grpc`
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


class Block(NamedTuple):
    """A fenced block: where it stands, what it says, and what it prints if that stands below it."""

    page: Path
    language: str
    code: str
    printed: str | None

    @property
    def commands(self) -> list[str]:
        """The commands of a block of shell, without settings before them and comments."""
        joined = self.code.replace("\\\n", " ")
        lines = (line.split(" #")[0].strip() for line in joined.splitlines())
        return [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in lines if line]

    @property
    def is_curl(self) -> bool:
        return self.language == "sh" and all(each.startswith("curl ") for each in self.commands)

    @property
    def is_inspection(self) -> bool:
        return self.language == "sh" and all(
            re.fullmatch(r"\.venv/bin/python -m service (inspect \w+|doctor|pin --check)", each)
            for each in self.commands
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is run by hand, or by the tests of the image and the manifests."""
        return self.language == "sh" and all(each.startswith(COMMANDS) for each in self.commands)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page; what a block prints is the next one, with nothing between."""
    text = page.read_text()
    guide = {TRAINING: GUIDE, README: SKLEARN_GUIDE}.get(page)
    if guide is not None:  # it is followed from its beginning to its end, below
        before, rest = text.split(guide)
        text = before + rest[rest.index("\n## ") :]
    found = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S))
    printed: dict[int, str] = {}
    for number, (block, after) in enumerate(pairwise(found)):
        is_near = not text[block.end() : after.start()].strip()
        if is_near and block[1] in ("sh", "python") and after[1] in ("text", "json"):
            printed[number] = after[2]
    return [
        Block(page, block[1], block[2], printed.get(number))
        for number, block in enumerate(found)
        if number - 1 not in printed
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def name_of(block: Block) -> str:
    where = block.page.relative_to(ROOT)
    return f"{where}-{block.code.splitlines()[0][:60]}"


def of_kind(is_one: Callable[[Block], bool]) -> Any:
    """Parametrize a test over the blocks of a kind."""
    found = filter(is_one, BLOCKS)
    return pytest.mark.parametrize("block", [_with_mark(each) for each in found])


def _with_mark(block: Block) -> Any:
    marks = [pytest.mark.grpc] if OVER_GRPC in block.code else []
    return pytest.param(block, id=name_of(block), marks=marks)


def same(printed: str, got: str) -> bool:
    """Whether two texts are the same, but for the last digits, which differ with the processor."""
    ours, theirs = NUMBER.findall(printed), NUMBER.findall(got)
    return NUMBER.sub("#", printed.strip()) == NUMBER.sub("#", got.strip()) and [
        float(number) for number in theirs
    ] == pytest.approx([float(number) for number in ours], rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[..., Process]]:
    """Return a function that gives the service with some settings; each is started once."""
    processes: dict[str, Process] = {}
    with ExitStack() as stack:

        def start(**settings: str) -> Process:
            key = json.dumps(settings, sort_keys=True)
            if key not in processes:
                service = running(models_dir=ROOT / "models", **settings)
                processes[key] = stack.enter_context(service)
            return processes[key]

        yield start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader would be: a folder with the models, and images of a seven."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "models").symlink_to(ROOT / "models")
    (seven,) = json.loads((ROOT / "models/mnist/2/request.json").read_text())["instances"]
    image = Image.fromarray(np.array(seven, np.uint8))
    for name in ("digit.png", "one.png", "two.jpg"):
        image.resize((280, 280)).save(folder / name)
    return folder


def run(command: str, folder: Path, statuses: tuple[int, ...] = (0,)) -> str:
    """Return what bash prints for a command, on stdout and stderr."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("TORCHLIT_")
    }
    done = subprocess.run(
        ["bash", "-ec", command.replace(PYTHON, sys.executable)],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), *ADDED])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in statuses, done.stdout
    return done.stdout


def with_address(block: Block, started: Callable[..., Process]) -> str:
    """Return a block's code for a service that runs; port 8080 is that of the page's container."""
    settings = re.findall(r"-e TORCHLIT_([A-Z_]+)=(\S+)", block.page.read_text())
    code = block.code
    for port, chosen in (("8000", {}), ("8080", {name.lower(): text for name, text in settings})):
        if f"localhost:{port}" in code:
            address = started(**chosen).url.removeprefix("http://")
            code = code.replace(f"localhost:{port}", address)
    return code


@pytest.mark.skipif(shutil.which("curl") is None, reason="the documents use curl")
@of_kind(lambda block: block.is_curl)
def test_curl_prints_what_the_document_says(
    started: Callable[..., Process], folder: Path, block: Block
) -> None:
    got = run(with_address(block, started).replace("curl ", "curl -sS "), folder)
    if block.printed is None:
        assert '"error"' not in got
        assert json.loads(got)
    else:
        assert same(block.printed, got), got


@of_kind(lambda block: block.language == "python")
def test_python_prints_what_the_document_says(
    started: Callable[..., Process], folder: Path, block: Block
) -> None:
    code = with_address(block, started)
    assert block.printed is not None
    assert same(block.printed, run(f"{PYTHON} - <<'END'\n{code}END\n", folder))


@of_kind(lambda block: block.language == "console")
def test_a_transcript_prints_what_the_document_says(folder: Path, block: Block) -> None:
    """A file that is shown before it is there is one that the reader has."""
    for command, printed in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block.code, re.M):
        shown = re.fullmatch(r"cat (\S+)", command)
        if shown and not (folder / shown[1]).exists():
            (folder / shown[1]).write_text(printed)
        assert same(printed, run(command, folder, statuses=(0, SOME_BAD))), command


@of_kind(lambda block: block.is_inspection)
def test_a_command_beside_the_service_finds_all_well(folder: Path, block: Block) -> None:
    got = run(f"TORCHLIT_PORT=0 {block.code}", folder)
    assert got
    assert block.printed in (None, got)


@of_kind(lambda block: block.is_elsewhere)
def test_what_a_command_names_is_there(block: Block) -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    for command in block.commands:
        if command.startswith("make "):
            assert set(command.split()[1:]) <= set(targets)
        for path in re.findall(r"\bdeploy/[\w./-]+", command):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_commands_of_a_page_name_is_there(page: Path) -> None:
    """Also in sentences and tables, and on pages whose blocks are not run."""
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    text = page.read_text()
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= set(targets)
    for path in re.findall(r"^kubectl .* (deploy/\S+)|-f (deploy/\S+)", text, re.M):
        assert (ROOT / "".join(path)).exists(), path


def test_no_block_is_passed_over() -> None:
    for block in BLOCKS:
        kinds = (
            *(block.is_curl, block.is_inspection, block.is_elsewhere),
            block.language in ("python", "console", SHOWN),
            block.code.strip() == ".venv/bin/python -m docs.reference",
        )
        assert sum(kinds) == 1, name_of(block)
    assert sum(block.is_curl for block in BLOCKS) >= 9
    assert sum(block.printed is not None for block in BLOCKS) >= 9


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    anchors: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        shown = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        same_before = sum(each == anchor for each in anchors)
        anchors.append(f"{anchor}-{same_before}" if same_before else anchor)
    return anchors


def links(page: Path) -> list[str]:
    """Return the targets of the links and images of a page, without code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


def test_the_readme_leads_to_every_page() -> None:
    """At most by way of one other page."""
    reached = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    for page in [each for each in reached if each.suffix == ".md"]:
        reached |= {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
    assert not set(LINKED) - reached - {README}


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= MOST_BYTES


def test_the_reference_pages_are_what_the_code_says(tmp_path: Path) -> None:
    command = f"{PYTHON} -m docs.reference --check"
    run(command, ROOT)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")  # it can fail
    tables = "tests/system/converters"
    shutil.copytree(ROOT / tables, tmp_path / tables)
    (tmp_path / "docs" / "metrics.md").write_text("# Metrics\n")
    with pytest.raises(AssertionError, match=r"docs/metrics\.md is not what the code says"):
        run(command, tmp_path)


def routes_of(page: Path) -> set[str]:
    return set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", page.read_text(), re.M))


def test_every_route_is_in_the_document(started: Callable[..., Process]) -> None:
    document = started().get("/schema/openapi.json").json()
    routes = set()
    for path, item in document["paths"].items():
        general = re.sub(r"^/(predict|prepare)/.*", r"/\1/{model}", path)
        general = re.sub(r"^/v2/models/[^/]+/infer$", "/v2/models/{model}/infer", general)
        routes |= {f"{method.upper()} {general}" for method in item}
    described = routes_of(ROOT / "docs" / "routes.md")
    assert routes <= described
    pages = re.compile(r"GET /(docs|schema/openapi\.json|static/\S+)?")  # what it leaves out
    assert [each for each in described - routes if not pages.fullmatch(each)] == []


def test_every_model_is_in_the_document_with_its_held_out_result(
    started: Callable[..., Process],
) -> None:
    text = TRAINING.read_text()
    models = started().get("/models").json()["models"]
    assert len(models) > 4
    for model in models:
        for version in model["versions"]:
            name, number, card = model["model"], version["version"], version["card"]
            metrics = ", ".join(f"{metric} {value:g}" for metric, value in card["metrics"].items())
            data_set = card["dataset"]["name"]
            assert f"| {name} {number} | {card['task']} | {metrics} | {data_set} |" in text
            for plot in card["pictures"]:
                assert f"(../models/{name}/{number}/{plot['file']})" in text


@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", ["xor", "moons", "iris", "housing", "mnist"])
def test_table_of_networks_and_classical_models_is_that_of_evaluate(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    from training.__main__ import main  # here and not above: it is slow to import

    assert main(["evaluate", name, "--models-dir", str(ROOT / "models")]) == 0
    printed = capsys.readouterr().out
    (table,) = re.findall(r"^```text\n(data +model .+?\n)```$", TRAINING.read_text(), re.M | re.S)
    table_of_it = [line for line in table.splitlines() if line.split()[0] in ("data", name)]
    assert len(table_of_it) > 2

    number = r"\d+\.\d+"
    for written, measured in zip(table_of_it, printed.splitlines(), strict=True):
        assert re.sub(number, "#", measured).split() == re.sub(number, "#", written).split()
        # The last digits differ with the processor: a flower more or less, in one of 30 splits.
        mean, others = (0.1, 1.3) if "%" in written else (0.01, 0.1)
        for place, (old, new) in enumerate(
            zip(re.findall(number, written), re.findall(number, measured), strict=True)
        ):
            assert float(new) == pytest.approx(float(old), abs=others if place else mean), written


@pytest.mark.slow
def test_guide_leads_from_a_table_to_a_served_model(tmp_path: Path) -> None:
    """Word for word, but for the Python, and the port that `make serve` would take."""
    section = TRAINING.read_text().split(GUIDE)[1].split("\n## ")[0]
    found = re.findall(r"^```\w+\n(.+?)\n```$", section, re.M | re.S)
    make_table, recipe, commands, call = found
    assert len(recipe.splitlines()) <= 34  # with the imports

    run(make_table, tmp_path)
    (tmp_path / "wine.py").write_text(recipe)
    train, evaluate, serve = commands.splitlines()
    assert serve == "make serve"
    assert re.search(r"^wine/1 +accuracy 0\.9", run(train, tmp_path), re.M)
    assert "random forest" in run(evaluate, tmp_path)
    path, body = re.fullmatch(r"curl -s localhost:8000(\S+) -d @(\S+)", call).groups()
    with running(models_dir=tmp_path / "models") as service:
        reply = service.post(path, content=(tmp_path / body).read_bytes())
    answer = reply.json()
    assert answer["model"] == "wine"
    assert answer["predictions"][0]["label"] == "barolo"
    assert answer["predictions"][0]["probability"] > 0.9


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the documents use curl")
def test_guide_leads_from_scikit_learn_to_a_served_model(tmp_path: Path) -> None:
    """Word for word, but for the Python, and the port."""
    section = README.read_text().split(SKLEARN_GUIDE)[1].split("\n## ")[0]
    recipe, commands, printed = re.findall(r"^```\w+\n(.+?)\n```$", section, re.M | re.S)
    assert len(recipe.splitlines()) <= 10
    (tmp_path / "fit.py").write_text(recipe)
    run(f"{PYTHON} fit.py", tmp_path)
    describe, call = commands.splitlines()
    assert "they answer as the card says" in run(describe, tmp_path)
    with running(models_dir=tmp_path / "models") as service:
        address = service.url.removeprefix("http://")
        assert same(printed, run(call.replace("localhost:8000", address), tmp_path))


def test_an_image_in_json_is_read_as_the_document_says(
    started: Callable[..., Process], folder: Path
) -> None:
    image = base64.b64encode((folder / "digit.png").read_bytes()).decode()
    for text in (image, f"data:image/png;base64,{image}"):
        body = {"model": "mnist", "instances": [{"b64": text}]}
        (prediction,) = started().post("/predict", json=body).json()["predictions"]
        assert prediction["label"] == "7"


# Prints what the switch is when ONNX Runtime is first imported, whoever does it, and ends there.
WATCH = """
import os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("telemetry:", os.environ.get("ORT_DISABLE_TELEMETRY"), flush=True)
            os._exit(0)

os.environ.pop("ORT_DISABLE_TELEMETRY", None)
sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize(
    "rest",
    [
        "import service.process.worker",
        "sys.argv[1:] = ['inspect', 'iris']; runpy.run_module('service', run_name='__main__')",
        "sys.argv[1:] = ['doctor']; runpy.run_module('service', run_name='__main__')",
        "import training, onnxruntime",
    ],
)
def test_telemetry_is_off_before_the_first_import(folder: Path, rest: str) -> None:
    printed = run(f"TORCHLIT_PORT=0 {PYTHON} - <<'END'{WATCH}{rest}\nEND\n", folder)
    assert re.findall(r"^telemetry: (.+)$", printed, re.M) == ["1"]


def test_telemetry_is_off_in_the_image() -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in (ROOT / "Dockerfile").read_text()
