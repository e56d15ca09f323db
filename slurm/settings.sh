# shellcheck shell=bash
# Every file of slurm/configs sources this file first. It sets each variable to its default, which
# removes the values of another configuration, and defines sbatch so that it requests the nodes and
# tasks of the configuration. slurm/README.md explains the variables.

OPENFOLD_ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"
export OPENFOLD_ROOT
export SYSTEM='' NODES='' RANKS_PER_NODE='' PRESET='' WALLTIME=''
export INSTANCES=1 CPUS_PER_RANK='' DIVISION=closed
export GPUS_PER_NODE=0 GPU_NAME='' GPU_MEMORY_GIB=0
export MIN_ALL_REDUCE_GB_S=0 BIND=topology
export PREDICTED_RUN_SECONDS=''

# shellcheck source=slurm/request.sh
. "$OPENFOLD_ROOT/slurm/request.sh"

# sbatch cannot read the number of nodes and tasks from the environment, so this function adds them
# for run.sub. Options on the command line come later and take precedence.
sbatch() {
    local argument
    for argument in "$@"; do
        case "$argument" in
        run.sub | */run.sub)
            # shellcheck disable=SC2046  # The options have no spaces.
            command sbatch $(openfold_request) "$@"
            return
            ;;
        esac
    done
    command sbatch "$@"
}
# Scripts that are started from this shell get the function, too.
if [ -n "${BASH_VERSION:-}" ]; then
    export -f sbatch openfold_request
fi
