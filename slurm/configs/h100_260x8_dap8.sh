# shellcheck shell=bash
# 2,048 H100 on 256 nodes train with eight per sample and batch 256; 32 on four more nodes evaluate.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_260x8_dap8
export NODES=260
export RANKS_PER_NODE=8
export PRESET=mlperf_256x8_dap8
export WALLTIME=4:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=15
