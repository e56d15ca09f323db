#!/usr/bin/env bash
# Sets up what is missing, then runs the test suite that CI runs; it needs no GPU.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_tests.sh [--setup-only] [PYTEST ARGUMENT ...]

Sets up what is missing (a .venv in the checkout, unless python3 has everything already), then runs
the tests in two processes. Further arguments go to pytest, for example: ./run_tests.sh tests/architecture

  --setup-only   set up, run nothing
  -h, --help     show this

Tests against golden results run if OPENFOLD_SHARED names the folder that holds them.
TEXT
}

root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
esac

# shellcheck source=tools/environment.sh
. "$root/tools/environment.sh"
prepare_environment tests dali
if [ "${1:-}" = "--setup-only" ]; then
    exit 0
fi

# two test processes on two cores: more threads in each would only wait for one another
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# the environment's own mpiexec goes with its mpi4py
PATH="$(dirname "$PYTHON"):$PATH"
export PATH
cd "$root"
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
