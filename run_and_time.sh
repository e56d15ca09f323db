#!/usr/bin/env bash
# Sets up the environment if it is missing, then makes one timed run of the benchmark.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_and_time.sh [--preset P] [--set FIELD=VALUE]... [--data-dir D]
                         [--distillation-data-dir D] [--output-dir O] [--init-checkpoint F]
                         [--init-weights W] [--seed S] [--phase P] [--ranks N] [--tensorboard]

Sets up the environment if it is missing (a .venv in the checkout, unless python3 has all modules),
then makes one timed run and prints STARTING TIMING RUN, ENDING TIMING RUN and, if the target was
reached, RESULT,OPENFOLD_HPC,,<seconds>,<submitter>,<start>. The exit code is the run's. A demo then
predicts a validation chain: picture, structure and report in prediction/ of its output.

  --preset P            configuration: the name of a file in benchmark/presets, or the path of your
                        own file, which ends with .py (default: demo)
  --set FIELD=VALUE     change a field of the configuration; may be given several times; open
                        division only
  --data-dir D          shards written by `python -m data_prep convert`; the presets demo and demo_*
                        have embedded data, which are created in data/demo before the clock starts
  --distillation-data-dir D
                        shards written by `python -m data_prep distill`, from which a sample is drawn
                        with the probability of --set selection.distillation_probability=P
  --output-dir O        directory for logs and checkpoints (default: runs/<preset>-<date>)
  --init-checkpoint F   weights to start from: a file, or the output directory of a run
  --init-weights W      weights of a run's checkpoint: average (default) or trained
  --seed S              seed of the run (default: from the clock)
  --phase P             train only this phase of a preset with phases: its name or number
  --ranks N             processes to start on this machine, which share every batch (default: 2 for
                        demo and demo_ci on at least two CPU cores without a GPU, else 1). Not under
                        torchrun or srun, which start this script once for every rank.
  --tensorboard         write event files for TensorBoard; needs the extra tensorboard
  -h, --help            show this

The submitter is the environment variable SUBMISSION_ORG (default: the name of the user). data/demo
and runs are in the directory OPENFOLD_WORK (default: the checkout; in a container, the current
directory).
TEXT
}

root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
preset=demo
data_dir=
output_dir=
ranks=
passed=()
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    --preset | --data-dir | --distillation-data-dir | --output-dir | --init-checkpoint | \
        --init-weights | --set | --seed | --phase | --ranks)
        if [ $# -lt 2 ]; then
            echo "run_and_time.sh: $1 needs a value; see --help" >&2
            exit 2
        fi
        # Such as a variable that is not set: the default would be another run.
        if [ -z "$2" ]; then
            echo "run_and_time.sh: the value of $1 is empty; leave out $1 for its default" >&2
            exit 2
        fi
        case "$1" in
        --preset) preset="$2" ;;
        --data-dir) data_dir="$2" ;;
        --output-dir) output_dir="$2" ;;
        --ranks) ranks="$2" ;;
        *) passed+=("$1" "$2") ;;
        esac
        shift 2
        ;;
    --tensorboard)
        passed+=("$1")
        shift
        ;;
    *)
        echo "run_and_time.sh: unknown argument $1; see --help" >&2
        exit 2
        ;;
    esac
done

case "$ranks" in
'' | [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;;
*)
    echo "run_and_time.sh: --ranks is $ranks; expected a number of processes from 1 to 999" >&2
    exit 2
    ;;
esac

# torchrun and srun start this script on every rank; only the first rank reports.
rank="${RANK:-${SLURM_PROCID:-0}}"
num_started="${WORLD_SIZE:-${SLURM_NTASKS:-1}}"
case "$rank,$num_started" in
*[!0-9,]*)
    echo "run_and_time.sh: the environment says rank $rank of $num_started; expected numbers in" \
        "RANK and WORLD_SIZE (torchrun) or SLURM_PROCID and SLURM_NTASKS (srun)" >&2
    exit 2
    ;;
esac
if [ -z "$output_dir" ] && [ "$num_started" -gt 1 ]; then
    echo "run_and_time.sh: $num_started ranks need one common directory; name it with" \
        "--output-dir" >&2
    exit 2
fi
is_launched=0
if [ -n "${RANK:-}" ] || [ "$num_started" -gt 1 ]; then
    is_launched=1
fi
if [ -n "$ranks" ] && [ "$is_launched" -eq 1 ]; then
    echo "run_and_time.sh: --ranks $ranks, but a launcher started $num_started ranks; leave out" \
        "--ranks" >&2
    exit 2
fi

case "$preset" in
*.py)
    preset_name="$(basename "$preset" .py)"
    preset_file="$preset"
    ;;
*)
    preset_name="$preset"
    preset_file="$root/benchmark/presets/$preset.py"
    ;;
esac
if ! [ -f "$preset_file" ]; then
    known="$(find "$root/benchmark/presets" -name '[a-z]*.py' -exec basename {} .py \; | sort |
        paste -s -d ' ')"
    echo "run_and_time.sh: unknown preset $preset; there are: $known" >&2
    exit 2
fi

# The checkout in an image is read-only, so the environment of an image names another directory.
work="${OPENFOLD_WORK:-$root}"
if ! work="$(CDPATH='' cd "$work" 2>/dev/null && pwd)"; then
    echo "run_and_time.sh: OPENFOLD_WORK names ${OPENFOLD_WORK:-}, which is no directory; create it," \
        "or name another" >&2
    exit 2
fi

# The log and the RESULT line name the same submitter. In a container a user may have no name.
export SUBMISSION_ORG="${SUBMISSION_ORG:-${USER:-$(id -un 2>/dev/null || id -u)}}"
case "$SUBMISSION_ORG" in
*[,\"[:cntrl:]]*)
    printf 'run_and_time.sh: SUBMISSION_ORG is %q; expected a name without %s\n' "$SUBMISSION_ORG" \
        "commas, quotes and line ends, which would break the RESULT line" >&2
    exit 2
    ;;
esac

# shellcheck source=tools/environment.sh
. "$root/tools/environment.sh"
# shellcheck source=tools/embedded_data.sh
. "$root/tools/embedded_data.sh"
prepare_environment run
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

if [ -z "$data_dir" ]; then
    if ! has_embedded_data "$preset"; then
        echo "run_and_time.sh: preset $preset has no embedded data; name its shards with" \
            "--data-dir" >&2
        exit 2
    fi
    make_embedded_data "$work/data/demo"
    data_dir="$work/data/demo/shards"
fi
if [ -z "$output_dir" ]; then
    output_dir="$work/runs/$preset_name-$(date +%Y%m%dT%H%M%S)"
fi

# default_ranks: the demo trains on two cores, one sample of a pair on each.
default_ranks() {
    case "$preset" in
    demo | demo_ci) ;;
    *)
        echo 1
        return
        ;;
    esac
    if nvidia-smi -L >/dev/null 2>&1; then
        echo 1
    else
        "$PYTHON" -c 'import os; print(min(2, len(os.sched_getaffinity(0))))'
    fi
}
if [ -z "$ranks" ] && [ "$is_launched" -eq 0 ]; then
    ranks="$(default_ranks)"
fi

# Seconds of the monotonic clock, which cannot be set, unlike that of `date` and SECONDS.
monotonic_seconds() { "$PYTHON" -c 'import time; print(int(time.monotonic()))'; }

start=$(monotonic_seconds)
start_text=$(date '+%Y-%m-%d %r')
report() { [ "$rank" -ne 0 ] || printf '%s\n' "$*"; }
report "STARTING TIMING RUN AT $start_text"

# forward SIGNAL: send a signal of this script to the run, once. The script then waits until the run
# has closed its log.
children=()
was_signaled=0
# shellcheck disable=SC2317  # The traps call it.
forward() {
    was_signaled=1
    # Ctrl-C reaches every process of the terminal. The run gets SIGINT from here only if it has not
    # ended one second later, as it does when the signal was sent to this script alone.
    [ "$1" != INT ] || sleep 1
    [ ${#children[@]} -eq 0 ] || kill -s "$1" "${children[@]}" 2>/dev/null || true
}
trap 'forward INT' INT
trap 'forward TERM' TERM
trap 'forward USR1' USR1

# start_rank [NAME=VALUE]...: start a process of the run with these environment variables.
start_rank() {
    # The shell makes background processes ignore SIGINT; this one must not.
    (
        trap - INT TERM USR1
        exec env "$@" "$PYTHON" -m benchmark run --preset "$preset" --data-dir "$data_dir" \
            --output-dir "$output_dir" ${passed[@]+"${passed[@]}"}
    ) &
    children+=($!)
}

# wait_for PID: wait for a process, also across signals, and return its exit code.
wait_for() {
    local code status=0
    # Without the shell's own message about a killed process, which shows the code of this script.
    wait "$1" 2>/dev/null || status=$?
    # A signal interrupts `wait`, which then returns before the process has ended.
    while [ "$was_signaled" -eq 1 ]; do
        was_signaled=0
        code=0
        wait "$1" 2>/dev/null || code=$?
        # 127: the status of the process is known already.
        [ "$code" -eq 127 ] || status=$code
    done
    return "$status"
}

# free_ports: print a port that is free, as is the one after it, which a run uses too.
free_ports() {
    "$PYTHON" - <<'PYTHON'
import socket

while True:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        try:
            second.bind(("127.0.0.1", port + 1))
        except (OSError, OverflowError):
            continue
    print(port)
    break
PYTHON
}

if [ "${ranks:-1}" -eq 1 ]; then
    start_rank
else
    port="$(free_ports)"
    for ((index = 0; index < ranks; index++)); do
        start_rank "RANK=$index" "LOCAL_RANK=$index" "WORLD_SIZE=$ranks" "LOCAL_WORLD_SIZE=$ranks" \
            MASTER_ADDR=127.0.0.1 "MASTER_PORT=$port" "OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}"
    done
fi
# The exit code of the first rank that failed of itself. The others then end with 76.
lost_rank=76
status=0
for index in "${!children[@]}"; do
    code=0
    wait_for "${children[index]}" || code=$?
    if [ "$code" -gt 128 ]; then
        echo "run_and_time.sh: rank $((rank + index)) was ended by signal $((code - 128))" >&2
    fi
    if [ "$status" -eq 0 ] || { [ "$status" -eq "$lost_rank" ] && [ "$code" -ne 0 ]; }; then
        status=$code
    fi
done
end=$(monotonic_seconds)
report "ENDING TIMING RUN AT $(date '+%Y-%m-%d %r')"

# Neither a resumed run nor the first phases of a run are a result.
is_finished() { grep -qs '"status": "finished"' "$output_dir/run.json"; }
if [ "$status" -eq 0 ] && [ "$rank" -eq 0 ] && [ -f "$output_dir/run.json" ]; then
    if ! is_finished; then
        echo "no RESULT line: this run has further phases"
    elif grep -q '"continued": false' "$output_dir/run.json"; then
        echo "RESULT,OPENFOLD_HPC,,$((end - start)),$SUBMISSION_ORG,$start_text"
    else
        echo "no RESULT line: this run was resumed"
    fi
fi

# The demos end with a structure to look at. Neither its time nor its outcome is part of the result.
if [ "$status" -eq 0 ] && [ "$num_started" -eq 1 ] && is_finished && has_embedded_data "$preset"; then
    "$PYTHON" -m benchmark predict-validation "$output_dir" --data-dir "$data_dir" ||
        echo "run_and_time.sh: the structure of a validation chain could not be predicted (see" \
            "above); the result of the run is not affected" >&2
fi
exit "$status"
