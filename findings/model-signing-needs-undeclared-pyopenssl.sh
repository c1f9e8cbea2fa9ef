#!/usr/bin/env bash
# model-signing 1.1.1 with sigstore 4.5.1 (Linux, Python 3.11)
#
# OpenSSF's tool that signs models cannot be started after `pip install model-signing`: it imports the
# module OpenSSL, of the package pyOpenSSL, which neither it nor sigstore asks for. Signing with a key of
# one's own needs no sigstore, and fails alike.
#
# Expected: model_signing --help prints its commands.
# Seen: ModuleNotFoundError: No module named 'OpenSSL'. With pyopenssl 26.4.0 installed beside it works.
#
# Who is hurt: who verifies signatures where models are deployed: an image that was built again verifies
# nothing any more.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check model-signing==1.1.1 sigstore==4.5.1
cd "$work"

if "$work/venv/bin/model_signing" --help > help.txt 2>&1; then
    echo "it starts without pyOpenSSL"
    exit 1
fi
tail -n 1 help.txt
grep -q "No module named 'OpenSSL'" help.txt
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyopenssl==26.4.0
"$work/venv/bin/model_signing" --help | head -n 1
