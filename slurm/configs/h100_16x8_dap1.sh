# shellcheck shell=bash
# 128 H100 on 16 nodes with one sample each: batch 128.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_16x8_dap1
export NODES=16
export RANKS_PER_NODE=8
export PRESET=mlperf_16x8_dap1
export WALLTIME=12:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=50
