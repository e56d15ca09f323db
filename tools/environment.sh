# shellcheck shell=bash
# Finds a Python that has the modules that a command needs, or sets one up. Source this file, then
# call
#
#     prepare_environment run|tests [dali]
#
# It stores the path of the interpreter in PYTHON. "dali" also installs DALI, for its tests. The
# interpreter is the `python3` on PATH if it has all modules (a container), else the .venv of the
# checkout, which is created and filled if it is missing.

ENVIRONMENT_ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '%s\n' "[setup] $*"; }

# lock_setup FILE, unlock_setup: only one process sets up at a time. The lock ends with its process.
lock_setup() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$1"
        flock 9
    fi
}

unlock_setup() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>&-
    fi
}

# fits_machine PYTHON: false if there are GPUs and the PyTorch of this interpreter is a CPU build.
fits_machine() {
    ! nvidia-smi -L >/dev/null 2>&1 ||
        "$1" -c 'import importlib.metadata, sys; sys.exit(importlib.metadata.version("torch").endswith("+cpu"))'
}

# has_modules PYTHON run|tests|dali: whether this interpreter is new enough and has the modules.
# "dali" checks DALI only.
has_modules() {
    local modules="torch numpy h5py numba gemmi kalign mlperf_logging matplotlib modelcif tqdm"
    if [ "$2" = tests ]; then
        modules="$modules pytest xdist mpi4py triton ruff mypy biotite tmtools openmm tensorboard playwright nbclient"
    elif [ "$2" = dali ]; then
        modules="torch nvidia.dali"
    fi
    "$1" - "$modules" <<'PYTHON' >/dev/null 2>&1
import importlib.metadata
import importlib.util
import sys

assert sys.version_info >= (3, 11)
missing = [name for name in sys.argv[1].split() if importlib.util.find_spec(name) is None]
# The torch of a container may have another version, but not an older one than this.
major, minor = importlib.metadata.version("torch").split(".")[:2]
sys.exit(1 if missing or (int(major), int(minor)) < (2, 11) else 0)
PYTHON
}

# find_base_python: print the name of a Python >= 3.11 that can create virtual environments.
find_base_python() {
    local candidate
    for candidate in python3 python3.12 python3.11 python3.13; do
        if "$candidate" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    printf '%s\n' "[setup] no Python >= 3.11 with the modules venv and ensurepip was found;" \
        "[setup] install one (Debian, Ubuntu: apt-get install python3 python3-venv) and start again" >&2
    return 1
}

# list_requirements PYTHON run|tests|dali: print the pinned requirements of pyproject.toml, one per
# line.
list_requirements() {
    "$1" - "$ENVIRONMENT_ROOT/pyproject.toml" "$2" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
groups = {
    "run": project["dependencies"] + extras["report"],
    "tests": project["dependencies"] + extras["mpi"] + extras["tests"],
    "dali": extras["dali"],
}
names = groups[sys.argv[2]]
print("\n".join(names))
PYTHON
}

# install_requirements PYTHON run|tests: install them. Without a GPU it takes the CPU build of
# torch, which is much smaller.
install_requirements() {
    local requirements options=()
    requirements="$(mktemp)"
    list_requirements "$1" "$2" >"$requirements"
    if ! command -v nvidia-smi >/dev/null 2>&1 &&
        "$1" -c 'import urllib.request as r; r.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=10)' \
            >/dev/null 2>&1; then
        options=(--extra-index-url https://download.pytorch.org/whl/cpu)
    fi
    say "installing: $(tr '\n' ' ' <"$requirements")"
    "$1" -m pip install --quiet --disable-pip-version-check "${options[@]}" --requirement "$requirements"
    local status=$?
    rm -f "$requirements"
    return "$status"
}

# prepare_environment run|tests [dali]: see the top of this file.
prepare_environment() {
    local purpose="$1" extra="${2:-}" venv="$ENVIRONMENT_ROOT/.venv" base
    if [ -x "$venv/bin/python" ] && has_modules "$venv/bin/python" "$purpose"; then
        fits_machine "$venv/bin/python" || {
            say "$venv was created on a machine without GPUs and has the CPU build of PyTorch, but" \
                "this machine has GPUs; create it again: rm -r $venv && ./run_tests.sh --setup-only" >&2
            return 1
        }
        PYTHON="$venv/bin/python"
        say "using $PYTHON"
        [ "$extra" != dali ] || add_dali
        return 0
    fi
    if [ ! -e "$venv" ] && has_modules python3 "$purpose"; then
        PYTHON="$(command -v python3)"
        say "using $PYTHON, which has all modules"
        [ "$extra" != dali ] || add_dali
        return 0
    fi
    lock_setup "$ENVIRONMENT_ROOT/.venv.lock"
    if [ -x "$venv/bin/python" ] && has_modules "$venv/bin/python" "$purpose"; then
        PYTHON="$venv/bin/python" # Another process set it up in the meantime.
        unlock_setup
        [ "$extra" != dali ] || add_dali
        return 0
    fi
    if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        base="$(find_base_python)" || return 1
        say "creating $venv with $("$base" --version)"
        "$base" -m venv --clear "$venv" || return 1
    fi
    install_requirements "$venv/bin/python" "$purpose" || {
        say "pip could not install what is missing (see above); nothing was run" >&2
        return 1
    }
    PYTHON="$venv/bin/python"
    has_modules "$PYTHON" "$purpose" || {
        say "$PYTHON still lacks modules; remove $venv and start again" >&2
        return 1
    }
    unlock_setup
    [ "$extra" != dali ] || add_dali
    say "ready: $PYTHON"
}

# add_dali: install DALI for the interpreter in PYTHON, so that the tests of the DALI operations
# run. It is optional: if this machine has no wheel, or the interpreter is outside the checkout, a
# line says so and the set-up continues.
add_dali() {
    local folder status=0
    has_modules "$PYTHON" dali && return 0
    case "$PYTHON" in
    "$ENVIRONMENT_ROOT"/.venv/*) ;;
    *)
        say "DALI is not installed in $PYTHON: its tests are skipped"
        return 0
        ;;
    esac
    lock_setup "$ENVIRONMENT_ROOT/.venv.lock"
    folder="$(mktemp -d)"
    list_requirements "$PYTHON" dali >"$folder/dali.txt"
    list_requirements "$PYTHON" tests >"$folder/pinned.txt"
    say "installing: $(tr '\n' ' ' <"$folder/dali.txt")"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --constraint "$folder/pinned.txt" --requirement "$folder/dali.txt" || status=$?
    rm -r "$folder"
    unlock_setup
    if [ "$status" -ne 0 ]; then
        say "DALI cannot be installed on this machine (see above): its tests are skipped"
    fi
}
