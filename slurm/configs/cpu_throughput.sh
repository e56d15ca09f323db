# shellcheck shell=bash
# For tests: throughput of two parallel instances of the demo, each on one node with two ranks per
# sample.
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
# The nodes of local_slurm.sh share the processors of one machine, so their ranks must not be bound.
export BIND=none
