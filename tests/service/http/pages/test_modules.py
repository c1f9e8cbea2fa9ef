from pathlib import Path

import pytest

from service.http.pages.modules import imported, with_preloads, without_indentation
from service.http.pages.pages import FOLDER

FILES = {
    "main.js": b'// import "./comment.js";\nimport { a } from "./a.js";\nimport "./b.js";\n',
    "a.js": b'import {\none,\ntwo,\n} from "./c.js";\nexport const from = "./no.js";\n',
    "b.js": b'export { x } from "./a.js";\nimport * as d from "./d.js";\n',
    "c.js": b'import { a } from "./a.js";\nconst text = `import "./no.js";`;\n',
    "d.js": b"",
    "no.js": b"",
}


def test_modules_are_found_through_others_and_each_once() -> None:
    assert imported("main.js", FILES) == ["a.js", "b.js", "c.js", "d.js"]
    assert imported("c.js", FILES) == ["a.js"]  # they import each other
    assert imported("d.js", FILES) == []


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"^a\.js imports \./c\.js: no such file$"):
        imported("main.js", {name: text for name, text in FILES.items() if name != "c.js"})


def test_links_come_before_the_script_and_from_its_folder() -> None:
    script = b'<script type="module" src="{{static}}/%s"></script>'
    page = b"<head>\n" + script % b"b.js" + b"\n</head>"
    links = [f'<link rel="modulepreload" href="{{{{static}}}}/{name}.js" />' for name in "adc"]
    expected = ["<head>", *links, (script % b"b.js").decode(), "</head>"]
    assert with_preloads(page, FILES).decode().splitlines() == expected
    assert with_preloads(b"<head></head>", FILES) == b"<head></head>"


each_file = pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)


@each_file
def test_a_line_loses_what_it_begins_with_and_nothing_else(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    assert without_indentation(path.read_bytes()).split(b"\n") == [line.lstrip() for line in lines]


@each_file
def test_lines_have_at_most_100_characters(path: Path) -> None:
    """Prettier breaks no strings; `a +` and a new line does."""
    assert [line for line in path.read_text().splitlines() if len(line) > 100] == []
