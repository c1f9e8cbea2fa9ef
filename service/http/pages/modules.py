"""What the files of static/ become before they are sent: links to modules, and no indentation.

Their format is Prettier's (`make check-pages`), and what is here relies on it: an import begins a
line, names a file beside it in double quotes, and ends with a semicolon.
"""

import re
from collections.abc import Mapping

ENTRY = re.compile(rb'<script type="module" src="([^"]*/)?([^"/]+)"></script>')
IMPORT = re.compile(rb'^(?:import|export) (?:[^;"]*? from )?"\./([^"]+)";', re.MULTILINE)
INDENTATION = re.compile(rb"^[ \t]+", re.MULTILINE)


def without_indentation(content: bytes) -> bytes:
    """Return a file whose lines begin at the left, which is 3 % less to send.

    Only a template literal of several lines would notice; sent.test.js proves that there is none.
    """
    return INDENTATION.sub(b"", content)


def with_preloads(page: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return a page that names all modules that its script imports, also through others.

    The browser then loads all of them together. Else it learns of a module only from the one that
    imports it, and waits once more for each level.
    """

    def links(entry: re.Match[bytes]) -> bytes:
        folder, name = entry[1] or b"", entry[2].decode()
        urls = [folder + each.encode() for each in imported(name, files)]
        return b"".join(b'<link rel="modulepreload" href="%s" />\n' % url for url in urls)

    return ENTRY.sub(lambda entry: links(entry) + entry[0], page)


def imported(name: str, files: Mapping[str, bytes]) -> list[str]:
    """Return the modules that a module imports, directly and through others, without itself.

    Raises ValueError if one imports a file that is not there.
    """
    found = [name]
    for module in found:  # which grows meanwhile
        for each in IMPORT.findall(files[module]):
            imports = each.decode()
            if imports not in files:
                raise ValueError(f"{module} imports ./{imports}: no such file")
            if imports not in found:
                found.append(imports)
    return found[1:]
