# shellcheck shell=bash
# For tests: two nodes of two processors train the demo, two samples side by side, each spread over two ranks.
# tools/local_slurm.sh makes such a cluster on one machine.
# shellcheck source=slurm/settings.sh
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=cpu_2x2
export NODES=2
export RANKS_PER_NODE=2
export PRESET=demo_2x2
export DIVISION=open
export WALLTIME=12:00:00
export MIN_ALL_REDUCE_GB_S=0.01
# nodes of local_slurm.sh share one set of processors, which must not be given out twice
export BIND=none
