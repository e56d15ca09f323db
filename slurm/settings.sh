# shellcheck shell=bash
# Sourced first by every file of slurm/configs: takes back what another configuration has set, gives each variable its
# default, and teaches sbatch to ask for what the configuration says. slurm/README.md explains the variables.

OPENFOLD_ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"
export OPENFOLD_ROOT
export SYSTEM='' NODES='' RANKS_PER_NODE='' PRESET='' WALLTIME=''
export INSTANCES=1 CPUS_PER_RANK='' DIVISION=closed
export GPUS_PER_NODE=0 GPU_NAME='' GPU_MEMORY_GIB=0
export MIN_ALL_REDUCE_GB_S=0 BIND=topology

# shellcheck source=slurm/request.sh
. "$OPENFOLD_ROOT/slurm/request.sh"

# sbatch cannot read the number of nodes and tasks from the environment. So, for run.sub alone, they come from here;
# what is given on the command line comes later and wins.
sbatch() {
    local argument
    for argument in "$@"; do
        case "$argument" in
        run.sub | */run.sub)
            # shellcheck disable=SC2046  # options without blanks
            command sbatch $(openfold_request) "$@"
            return
            ;;
        esac
    done
    command sbatch "$@"
}
# for the scripts that are started from this shell
if [ -n "${BASH_VERSION:-}" ]; then
    export -f sbatch openfold_request
fi
