# shellcheck shell=bash
# The full training on 1,056 H100: 1,024 on 128 nodes train, 32 on four more evaluate. For both
# phases of initial_training_1056, and for the first phase of initial_training_2080.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_132x8_initial
export NODES=132
export RANKS_PER_NODE=8
export PRESET=initial_training_1056
export DIVISION=open
export WALLTIME=16:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=15
