# shellcheck shell=bash
# For tests: throughput of two instances side by side, the demo on each of two nodes, every sample spread over two ranks.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=cpu_throughput
export NODES=2
export RANKS_PER_NODE=2
export PRESET=demo_dap2
export DIVISION=open
export WALLTIME=12:00:00
export INSTANCES=2
export MIN_ALL_REDUCE_GB_S=0.01
# nodes of local_slurm.sh share one set of processors, which must not be given out twice
export BIND=none
