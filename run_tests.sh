#!/usr/bin/env bash
# Sets up the environment if it is missing, then runs the test suite of CI, which needs no GPU.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_tests.sh [--setup-only] [PYTEST ARGUMENT ...]

Sets up the environment if it is missing (a .venv in the checkout, unless python3 has all modules),
then runs the tests in two processes. Further arguments go to pytest, for example:
./run_tests.sh tests/architecture

  --setup-only   set up the environment without running tests
  -h, --help     show this

Tests against golden results run if OPENFOLD_SHARED names the folder with these results.
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

# There are two test processes for two cores, so each process gets one thread.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# mpi4py needs the mpiexec of the same environment.
PATH="$(dirname "$PYTHON"):$PATH"
export PATH
cd "$root"
# tests/conftest.py orders the files; without the option, those with the most tests come first.
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
