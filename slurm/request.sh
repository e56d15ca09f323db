# shellcheck shell=bash
# Sourced by settings.sh, for sbatch, and by run.sub, which says it to those who called sbatch in another way.

# openfold_request: the options of sbatch that ask for what the configuration says, without blanks in any
openfold_request() {
    printf '%s ' "--job-name=openfold-$SYSTEM" "--nodes=$NODES" "--ntasks-per-node=$RANKS_PER_NODE" "--time=$WALLTIME"
    [ -z "$CPUS_PER_RANK" ] || printf '%s ' "--cpus-per-task=$CPUS_PER_RANK"
    [ "$GPUS_PER_NODE" -eq 0 ] || printf '%s ' "--gpus-per-node=$GPUS_PER_NODE" --exclusive
}
