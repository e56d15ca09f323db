# shellcheck shell=bash
# 896 A100 (40 GB or more) on 224 nodes: 872 train with four per sample and batch 218, 24 evaluate.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=a100_224x4_dap4
export NODES=224
export RANKS_PER_NODE=4
export PRESET=mlperf_a100_224x4_dap4
export WALLTIME=6:00:00
export GPUS_PER_NODE=4
export GPU_NAME=A100
export GPU_MEMORY_GIB=39
export MIN_ALL_REDUCE_GB_S=5
