#!/usr/bin/env bash
# slurm/module.sh MODULE ARGUMENT...: run python -m MODULE in the environment of run_and_time.sh,
# which is set up if it is missing.
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=tools/environment.sh
. "$root/tools/environment.sh"
prepare_environment run >&2
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m "$@"
