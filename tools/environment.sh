# shellcheck shell=bash
# Finds, or sets up once, a Python that has what a front-door command needs. Sourced by run_and_time.sh
# and run_tests.sh:
#
#     prepare_environment run|tests
#     add_dali
#
# The first leaves the interpreter's path in PYTHON, the second adds DALI to it for its tests. Order: the `python3` of the surroundings if everything can be
# imported from it (a container), else the checkout's own .venv, which is made and filled when missing.

ENVIRONMENT_ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '%s\n' "[setup] $*"; }

# wait_for_turn FILE, end_turn: of several processes, only one sets up at a time. A process that dies ends its turn.
wait_for_turn() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>"$1"
        flock 9
    fi
}

end_turn() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>&-
    fi
}

# fits_machine PYTHON: false where there are GPUs and its PyTorch is a build for CPUs
fits_machine() {
    ! nvidia-smi -L >/dev/null 2>&1 ||
        "$1" -c 'import importlib.metadata, sys; sys.exit(importlib.metadata.version("torch").endswith("+cpu"))'
}

# has_modules PYTHON run|tests|dali: can this interpreter import everything, and is it new enough? "dali" asks for DALI alone.
has_modules() {
    local modules="torch numpy h5py numba gemmi kalign mlperf_logging matplotlib tqdm"
    if [ "$2" = tests ]; then
        modules="$modules pytest xdist mpi4py triton ruff mypy"
    elif [ "$2" = dali ]; then
        modules="torch nvidia.dali"
    fi
    "$1" - "$modules" <<'PYTHON' >/dev/null 2>&1
import importlib.metadata
import importlib.util
import sys

assert sys.version_info >= (3, 11)
missing = [name for name in sys.argv[1].split() if importlib.util.find_spec(name) is None]
# a container may bring a torch of its own, but not an old one
major, minor = importlib.metadata.version("torch").split(".")[:2]
sys.exit(1 if missing or (int(major), int(minor)) < (2, 11) else 0)
PYTHON
}

# find_base_python: name of a Python >= 3.11 that can make virtual environments.
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

# list_requirements PYTHON run|tests|dali: the pinned requirements of pyproject.toml, one a line.
list_requirements() {
    "$1" - "$ENVIRONMENT_ROOT/pyproject.toml" "$2" <<'PYTHON'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
groups = {
    "run": project["dependencies"],
    "tests": project["dependencies"] + extras["mpi"] + extras["tests"],
    "dali": extras["dali"],
}
names = groups[sys.argv[2]]
print("\n".join(names))
PYTHON
}

# install_requirements PYTHON run|tests: the CPU build of torch is enough, and far smaller, without a GPU.
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

prepare_environment() {
    local purpose="$1" venv="$ENVIRONMENT_ROOT/.venv" base
    if [ -x "$venv/bin/python" ] && has_modules "$venv/bin/python" "$purpose"; then
        fits_machine "$venv/bin/python" || {
            say "$venv was made on a machine without GPUs and has a PyTorch for CPUs, but this one has GPUs; remove it and set it up" \
                "here: rm -r $venv && ./run_tests.sh --setup-only" >&2
            return 1
        }
        PYTHON="$venv/bin/python"
        say "using $PYTHON"
        return 0
    fi
    if [ ! -e "$venv" ] && has_modules python3 "$purpose"; then
        PYTHON="$(command -v python3)"
        say "using $PYTHON, which has everything"
        return 0
    fi
    wait_for_turn "$ENVIRONMENT_ROOT/.venv.lock"
    if [ -x "$venv/bin/python" ] && has_modules "$venv/bin/python" "$purpose"; then
        PYTHON="$venv/bin/python" # another process set it up in the meantime
        end_turn
        return 0
    fi
    if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        base="$(find_base_python)" || return 1
        say "making $venv with $("$base" --version)"
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
    end_turn
    say "ready: $PYTHON"
}

# add_dali: DALI for the interpreter in PYTHON, so that its tests run too. It is optional: where there is no wheel for this machine, or the
# interpreter is outside the checkout, the set-up continues without it and says so.
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
    wait_for_turn "$ENVIRONMENT_ROOT/.venv.lock"
    folder="$(mktemp -d)"
    list_requirements "$PYTHON" dali >"$folder/wanted.txt"
    list_requirements "$PYTHON" tests >"$folder/held.txt"
    say "installing: $(tr '\n' ' ' <"$folder/wanted.txt")"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --constraint "$folder/held.txt" --requirement "$folder/wanted.txt" || status=$?
    rm -r "$folder"
    end_turn
    if [ "$status" -ne 0 ]; then
        say "DALI cannot be installed on this machine (see above): its tests are skipped"
    fi
}
