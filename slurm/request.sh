# shellcheck shell=bash
# Source this file to build the options of sbatch. settings.sh uses it for sbatch, and run.sub for
# its error messages.

# openfold_request: print the options of sbatch for the configuration, none of which has spaces
openfold_request() {
    printf '%s ' "--job-name=openfold-$SYSTEM" "--nodes=$NODES" "--ntasks-per-node=$RANKS_PER_NODE" \
        "--time=$WALLTIME"
    [ -z "$CPUS_PER_RANK" ] || printf '%s ' "--cpus-per-task=$CPUS_PER_RANK"
    [ "$GPUS_PER_NODE" -eq 0 ] || printf '%s ' "--gpus-per-node=$GPUS_PER_NODE" --exclusive
}
