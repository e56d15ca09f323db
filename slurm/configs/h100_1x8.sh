# shellcheck shell=bash
# One node with eight H100 (80 GB): batch 128 by accumulation.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_1x8
export NODES=1
export RANKS_PER_NODE=8
export PRESET=mlperf_1x8
export WALLTIME=2-00:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=200
