#!/usr/bin/env bash
# slurm/prepare.sh PRESET DATA_DIR EMBEDDED_DIR: once in a job, on one node: the environment and, where DATA_DIR is empty, the
# preset's embedded data, made in EMBEDDED_DIR. Its last line is the data directory.
set -euo pipefail
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=tools/environment.sh
. "$root/tools/environment.sh"
# shellcheck source=tools/embedded_data.sh
. "$root/tools/embedded_data.sh"
prepare_environment run
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
data_dir="$2"
if [ -z "$data_dir" ]; then
    has_embedded_data "$1" || {
        echo "preset $1 has no embedded data; set DATADIR to its shards" >&2
        exit 2
    }
    make_embedded_data "$3"
    data_dir="$3/shards"
    # made a moment ago on this machine, but the checks ask for the record
    "$PYTHON" -m data_prep verify "$data_dir" 2>&1
fi
echo "$data_dir"
