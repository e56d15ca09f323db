# shellcheck shell=bash
# 1,024 H100 on 128 nodes train with eight per sample and batch 128; 32 on four more nodes evaluate.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_128x8_dap8
export NODES=132
export RANKS_PER_NODE=8
export PRESET=mlperf_128x8_dap8
export WALLTIME=6:00:00
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=20
