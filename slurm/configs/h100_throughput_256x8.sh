# shellcheck shell=bash
# Throughput: 16 parallel instances, each with batch 128 on 16 nodes of eight H100. NEXP=1 makes one
# throughput result.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=h100_throughput_256x8
export NODES=256
export RANKS_PER_NODE=8
export PRESET=mlperf_16x8_dap1
export WALLTIME=4:00:00
export INSTANCES=16
export GPUS_PER_NODE=8
export GPU_NAME=H100
export GPU_MEMORY_GIB=79
export MIN_ALL_REDUCE_GB_S=50
