#!/usr/bin/env bash
# Installs the pinned requirements that an image lacks, without changing the libraries of the image.
# docker/Dockerfile and docker/openfold.def call it; the arguments are extras of pyproject.toml.
set -euo pipefail

here="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if ! python3 -c 'import sys, pip; assert sys.version_info >= (3, 11)' 2>/dev/null; then
    echo "install_requirements.sh: found $(python3 --version 2>&1 || true), expected Python >= 3.11" \
        "with pip; use another base image" >&2
    exit 2
fi
files="$(mktemp --directory)"
trap 'rm -rf "$files"' EXIT
python3 "$here/missing_requirements.py" "$files" "$@"

# NVIDIA's images set PIP_CONSTRAINT to a list that also contains packages that are not installed;
# the constraints below are enough. A container is its own environment, so pip may write to the
# Python of Debian's packages.
PIP_CONSTRAINT='' PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore python3 -m pip install \
    --no-cache-dir --disable-pip-version-check --constraint "$files/held.txt" \
    --requirement "$files/missing.txt"
