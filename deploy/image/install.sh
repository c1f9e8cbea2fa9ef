#!/bin/sh
# Install what the service needs into /venv, and take out what serving never reads:
#     install.sh EXTRA        EXTRA is cpu or gpu, as in pyproject.toml, which lies here
# tests/system/container/ shows that what is left serves; README.md lists what was cut.
set -eu

# The dependencies alone: the service itself changes more often, and gets a layer of its own.
python3 - "$1" > needed.txt <<'END'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras[sys.argv[1]], *extras["grpc"], sep="\n")
END
python3 -m venv --without-pip /venv
pip --python /venv/bin/python install --quiet --no-compile --only-binary=:all: \
    -c constraints.txt -c constraints-gpu.txt -r needed.txt

cd /venv/lib/python3*/site-packages

# Packages that others ask for and serving does not import: test data (litestar), and readers of
# formats that only onnxruntime's tools write.
rm -rf faker faker-* polyfactory polyfactory-* flatbuffers flatbuffers-*

# onnxruntime: tools that make models, and the library for C programs: Python's holds all of it.
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets
[ "$1" = gpu ] || rm -f onnxruntime/capi/libonnxruntime.so*

# Colours for source code in 500 languages; rich, which litestar imports, needs none to be there.
find pygments/lexers -name '*.py' ! -name __init__.py ! -name _mapping.py ! -name python.py -delete

# Pillow: fonts, colour profiles, windows, and all formats but PNG and JPEG (its TIFF, JPEG 2000 and X11
# libraries must stay, as the module that has PNG and JPEG is linked to them).
rm -f PIL/_avif* PIL/_webp* PIL/_imagingft* PIL/_imagingcms* PIL/_imagingtk*
for each in avif webp sharpyuv freetype harfbuzz brotli png16 lcms2; do
    rm -f pillow.libs/lib$each*
done

# Tests, what was compiled or helps to compile, types for editors.
rm -rf numpy/f2py numpy/distutils
find . -type d -name tests -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.cpp' -o -name '*.[cha]' \) -delete

# What debuggers read. Not of numpy, onnxruntime and CUDA, which hold none, and whose libraries
# were patched when they were built.
find . -name '*.so' ! -path './numpy*' ! -path './onnxruntime*' ! -path './nvidia*' \
    -exec strip --strip-debug {} +

python3 -m compileall -q --invalidation-mode unchecked-hash .
