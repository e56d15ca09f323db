#!/usr/bin/env bash
# Installs what an image lacks of the pinned requirements, and leaves what it brings as it is. Used by docker/Dockerfile and
# docker/openfold.def while they build; arguments are extras of pyproject.toml.
set -euo pipefail

here="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if ! python3 -c 'import sys, pip; assert sys.version_info >= (3, 11)' 2>/dev/null; then
    echo "install_requirements.sh: found $(python3 --version 2>&1 || true), expected Python >= 3.11 with pip; take another base image" >&2
    exit 2
fi
files="$(mktemp --directory)"
trap 'rm -rf "$files"' EXIT
python3 "$here/missing_requirements.py" "$files" "$@"

# NVIDIA's images name a list of constraints in PIP_CONSTRAINT that also has what is not installed; what is installed is held all the same.
# A container is its own environment, so pip may write to a Python that Debian's packages own.
PIP_CONSTRAINT='' PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore python3 -m pip install \
    --no-cache-dir --disable-pip-version-check --constraint "$files/held.txt" --requirement "$files/missing.txt"
