# shellcheck shell=bash
# The full training on 2,080 H100: 2,048 on 256 nodes train, 32 on four more evaluate. For the
# second phase of initial_training_2080.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_260x8_initial
export NODES=260
export RANKS_PER_NODE=8
export PRESET=initial_training_2080
export DIVISION=open
export WALLTIME=12:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=15
