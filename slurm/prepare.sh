#!/usr/bin/env bash
# slurm/prepare.sh PRESET DATA_DIR EMBEDDED_DIR: set up the environment and, if DATA_DIR is empty,
# create the embedded data of the preset in EMBEDDED_DIR. It runs once in a job, on one node. Its
# last line is the data directory.
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
    # preflight requires the record of data_prep verify.
    "$PYTHON" -m data_prep verify "$data_dir" 2>&1
fi
echo "$data_dir"
