# shellcheck shell=bash
# 64 H100 on eight nodes with two micro-batches of one sample: batch 128.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_8x8
export NODES=8
export RANKS_PER_NODE=8
export PRESET=mlperf_8x8_dap1
export WALLTIME=1-00:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=50
