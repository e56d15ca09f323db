# shellcheck shell=bash
# For tests: two nodes of two processors train the demo with two samples, each sharded over two
# ranks. tools/local_slurm.sh starts such a cluster on one machine.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=cpu_2x2
export NODES=2
export RANKS_PER_NODE=2
export PRESET=demo_2x2
export DIVISION=open
export WALLTIME=12:00:00
export MIN_ALL_REDUCE_GB_S=0.01
# The nodes of local_slurm.sh share the processors of one machine, so their ranks must not be bound.
export BIND=none
