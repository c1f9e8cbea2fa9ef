#!/usr/bin/env bash
# Pillow 13.0.0 (Linux)
#
# A PNG may hold texts, each under a keyword that its writer chooses (tEXt, section 11.3.3 of its
# specification); a reader that does not know a keyword passes it over. Pillow puts them into the same
# dictionary, Image.info, as its own facts of the file, and then reads some of those back from it.
#
# Expected: a picture with a text is the picture, whatever the keyword is.
# Seen: with the keyword `author` it is read. With `interlace` it is "image file is truncated", with
# `bbox` "invalid extents", with `transparency` it opens and convert("RGBA") raises TypeError.
#
# Who is hurt: whoever takes pictures that others made. A valid file, which browsers show, is told to be
# broken.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import io

from PIL import Image, PngImagePlugin


def read(keyword: str) -> str:
    texts = PngImagePlugin.PngInfo()
    texts.add_text(keyword, "no")
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG", pnginfo=texts)
    try:
        image = Image.open(file)
        image.load()
        assert image.getpixel((7, 7)) == (1, 2, 3)
        image.convert("RGBA")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


seen = {keyword: read(keyword) for keyword in ("author", "interlace", "bbox", "transparency")}
for keyword, result in seen.items():
    print(f"{keyword}: {result}")
assert seen["author"] == "read"
assert seen["interlace"].startswith("OSError: image file is truncated")
assert seen["bbox"].startswith("ValueError: ")
assert seen["transparency"].startswith("TypeError: ")
PY
