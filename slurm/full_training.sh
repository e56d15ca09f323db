#!/usr/bin/env bash
# Submits the phases of a preset as a chain of Slurm jobs, each of which starts when the one before
# has completed its phase. slurm/README.md, "The full training", describes it.
#
#   DIR/phases.txt, jobs.txt   phases with configuration and ranks; submitted jobs
#   DIR/command.txt            the command that continues the training
#   DIR/request.txt, seeds.txt preset and seed, the same in all jobs
#   DIR/job-<number>.out       output of a job
#   DIR/phase_<name>.log       console of a phase, all jobs
#   DIR/run_1/                 output directory of the run
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: slurm/full_training.sh --preset P --phase NAME=CONFIG... --output-dir DIR [--data-dir D]
                              [--init-checkpoint F] [--seed S] [--walltime NAME=T]... [--dry-run]
                              [--no-checks] [-- SBATCH_OPTION...]

Submits a job for each phase of the preset that is not complete, in a chain: a job starts when the job
before it has completed its phase. If a phase fails or does not reach its condition, Slurm cancels the
jobs after it. A job that is preempted, or whose time is nearly over, stops with a checkpoint, is
requeued and continues. The same command continues a stopped chain with the first incomplete phase.

  --preset P            a preset with phases (python -m benchmark phases --preset P lists them)
  --phase NAME=CONFIG   Slurm configuration of a phase: a name in slurm/configs, or the path of a file
                        that ends with .sh; once for each phase of the preset, in their order
  --output-dir DIR      directory of the chain, on a file system that all nodes share
  --data-dir D          shards (default: DATADIR, else the embedded data of the presets demo_*)
  --init-checkpoint F   weights to start from (default: INIT_CHECKPOINT, else random weights)
  --seed S              seed of the run (default: random)
  --walltime NAME=T     time limit of each job of a phase (default: WALLTIME of its configuration)
  --dry-run             print the commands, write and submit nothing
  --no-checks           submit without checking phases and ranks, where no Python environment exists
  -- SBATCH_OPTION...   further options for every sbatch, such as --partition=gpu --account=me
  -h, --help            show this

Progress of the whole chain: python -m benchmark status DIR
TEXT
}

readonly USAGE=2
root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

refuse() {
    printf 'full_training.sh: %s\n' "$*" >&2
    exit "$USAGE"
}

absolute() {
    case "$1" in
    '' | /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
    esac
}

# split_option OPTION TEXT: set name and value of NAME=VALUE
split_option() {
    name="${2%%=*}" value="${2#*=}"
    [[ "$2" =~ ^[A-Za-z0-9_-]+=.+$ ]] || refuse "$1 $2: expected NAME=VALUE"
}

parse_arguments() {
    local name value
    while [ $# -gt 0 ]; do
        case "$1" in
        -h | --help)
            usage
            exit 0
            ;;
        --dry-run) is_dry_run=1 ;;
        --no-checks) has_checks='' ;;
        --)
            shift
            sbatch_options=("$@")
            break
            ;;
        --preset | --phase | --output-dir | --data-dir | --init-checkpoint | --seed | --walltime)
            [ $# -ge 2 ] || refuse "$1 needs a value; see --help"
            case "$1" in
            --preset) preset="$2" ;;
            --output-dir) chain_dir="$(absolute "$2")" ;;
            --data-dir) data_dir="$2" ;;
            --init-checkpoint) init_checkpoint="$2" ;;
            --seed) seed="$2" ;;
            --walltime)
                split_option "$@"
                walltimes[$name]="$value"
                ;;
            --phase)
                split_option "$@"
                [ -z "${configs[$name]:-}" ] || refuse "phase $name is given twice; give it once"
                phases+=("$name")
                configs[$name]="$value"
                ;;
            esac
            shift
            ;;
        *) refuse "unknown argument $1; see --help" ;;
        esac
        shift
    done
}

check_arguments() {
    local name
    [ -n "$preset" ] || refuse "no --preset; see --help"
    [ -n "$chain_dir" ] || refuse "no --output-dir; see --help"
    [[ "$chain_dir" != *[[:space:]]* ]] || refuse "found a space in $chain_dir; expected none"
    [ "${#phases[@]}" -gt 0 ] ||
        refuse "no --phase; python -m benchmark phases --preset $preset lists the phases"
    for name in "${!walltimes[@]}"; do
        [ -n "${configs[$name]:-}" ] || refuse "--walltime of $name: no --phase has this name"
    done
    for name in data_dir distillation_dir init_checkpoint; do
        [ -z "${!name}" ] || [ -e "${!name}" ] || refuse "${!name} does not exist; correct it"
    done
    [ -n "$is_dry_run" ] || command -v sbatch >/dev/null ||
        refuse "sbatch was not found; call this script where Slurm jobs are submitted"
}

# config_file NAME: print the path of the Slurm configuration of a phase
config_file() {
    local config="${configs[$1]}"
    case "$config" in
    *.sh) absolute "$config" ;;
    *) echo "$root/slurm/configs/$config.sh" ;;
    esac
}

# read_config NAME: source the configuration of a phase; call it in a subshell
read_config() {
    local file
    file="$(config_file "$1")"
    [ -f "$file" ] || refuse "phase $1: $file does not exist; expected a file of slurm/configs"
    # shellcheck source=slurm/configs/cpu_2x2.sh
    . "$file"
    [ "$INSTANCES" = 1 ] ||
        refuse "phase $1: ${configs[$1]} has INSTANCES=$INSTANCES; expected a configuration with 1"
    WALLTIME="${walltimes[$1]:-$WALLTIME}"
}

# read_ranks: set ranks[NAME]
read_ranks() {
    local name
    for name in "${phases[@]}"; do
        ranks[$name]="$(read_config "$name" && echo $((NODES * RANKS_PER_NODE)))" || exit "$USAGE"
    done
}

# find_python: print a Python that has the modules of a run. It installs nothing: an environment
# that is set up on a login node without GPUs does not serve the jobs.
find_python() {
    local candidate
    # shellcheck source=tools/environment.sh
    . "$root/tools/environment.sh"
    for candidate in "$root/.venv/bin/python" python3; do
        if command -v "$candidate" >/dev/null && has_modules "$candidate" run; then
            echo "$candidate"
            return
        fi
    done
    refuse "no Python with the modules of a run was found; set it up on a node with GPUs (srun -N1 -n1" \
        "--gpus=1 ./run_tests.sh --setup-only), or skip the checks by --no-checks"
}

# check_phases: check the phases and their ranks, and set remaining to the incomplete phases
check_phases() {
    local name python arguments=(--preset "$preset" --remaining "$chain_dir/run_1") shown
    remaining=("${phases[@]}")
    # The job of a complete phase ends at once.
    [ -n "$has_checks" ] || return 0
    python="$(find_python)" || exit "$USAGE"
    for name in "${phases[@]}"; do arguments+=(--ranks "$name=${ranks[$name]}"); done
    shown="$(PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -m benchmark phases "${arguments[@]}")" ||
        refuse "the phases do not fit (see above); nothing was submitted"
    mapfile -t remaining < <(sed '/^$/d' <<<"$shown")
}

# check_directory: refuse the directory of another training, or one whose jobs are in the queue
check_directory() {
    local phase job state queued=()
    if [ -s "$chain_dir/chain.txt" ] && [ "$(describe_chain)" != "$(cat "$chain_dir/chain.txt")" ]; then
        refuse "$chain_dir is of another training ($(paste -s -d ' ' "$chain_dir/chain.txt"); expected" \
            "$(describe_chain | paste -s -d ' ')); name another directory, or repeat the first command"
    fi
    [ -s "$chain_dir/jobs.txt" ] || return 0
    # shellcheck disable=SC2034  # The phase is not used.
    while read -r phase job _; do
        state="$(squeue --noheader --jobs="$job" --format=%T 2>/dev/null)" || state=''
        [ -z "$state" ] || queued+=("$job")
    done <"$chain_dir/jobs.txt"
    [ "${#queued[@]}" -eq 0 ] ||
        refuse "jobs ${queued[*]} of this training are in the queue; wait for their end, or cancel them:" \
            "scancel ${queued[*]}"
}

# describe_chain: print what must not change when the chain is continued
describe_chain() {
    printf '%s\n' "preset=$preset" "data_dir=$data_dir" "init_checkpoint=$init_checkpoint" "seed=$seed" \
        "distillation_datadir=$distillation_dir" "run_options=${RUN_OPTIONS:-}"
}

write_files() {
    local name
    mkdir -p "$chain_dir" || refuse "$chain_dir cannot be created; correct --output-dir"
    describe_chain >"$chain_dir/chain.txt"
    for name in "${phases[@]}"; do
        echo "$name ${configs[$name]} ${ranks[$name]}"
    done >"$chain_dir/phases.txt"
    printf 'cd %q && DATADIR=%q INIT_CHECKPOINT=%q DISTILLATION_DATADIR=%q RUN_OPTIONS=%q %s\n' "$PWD" \
        "$data_dir" "$init_checkpoint" "$distillation_dir" "${RUN_OPTIONS:-}" "$command_line" \
        >"$chain_dir/command.txt"
}

# shellcheck disable=SC2030  # The job gets the variables, this script does not.
# submit NAME DEPENDENCY: submit the job of a phase, and print its number; DEPENDENCY is the number of
# the job before it, or empty
submit() (
    read_config "$1"
    export PRESET="$preset" PHASE="$1" JOB_DIR="$chain_dir" LOGDIR="$chain_dir" SEED="$seed"
    export DATADIR="$data_dir" INIT_CHECKPOINT="$init_checkpoint" WALLTIME
    export DISTILLATION_DATADIR="$distillation_dir"
    # shellcheck disable=SC2046  # The options have no spaces.
    set -- $(openfold_request) "--job-name=openfold-$SYSTEM-$1" "--output=$chain_dir/job-%j.out" \
        ${2:+"--dependency=afterok:$2" --kill-on-invalid-dep=yes} "${sbatch_options[@]}" \
        "$root/slurm/run.sub"
    if [ -n "$is_dry_run" ]; then
        show_command "$PHASE" "$@" >&3
        echo "JOB_OF_$PHASE"
    else
        command sbatch --parsable "$@" | cut -d ';' -f 1
    fi
)

# show_command PHASE SBATCH_ARGUMENT...: print the command that submits the job of a phase
show_command() {
    local name
    printf 'source %q && ' "$(config_file "$1")"
    shift
    for name in PRESET PHASE JOB_DIR LOGDIR SEED DATADIR DISTILLATION_DATADIR INIT_CHECKPOINT; do
        [ -z "${!name}" ] || printf '%s=%q ' "$name" "${!name}"
    done
    # After sourcing, sbatch alone is a function that adds options.
    printf 'command sbatch'
    printf ' %q' "$@"
    printf '\n'
}

submit_all() {
    local name previous='' job submitted=()
    for name in "${remaining[@]}"; do
        if ! job="$(submit "$name" "$previous")" || [ -z "$job" ]; then
            [ "${#submitted[@]}" -eq 0 ] || scancel "${submitted[@]}"
            refuse "the job of phase $name was not accepted (see above)${submitted[*]:+; the jobs before" \
                "it were canceled: ${submitted[*]}}"
        fi
        previous="$job"
        [ -z "$is_dry_run" ] || continue
        submitted+=("$job")
        echo "$name $job $(date '+%Y-%m-%dT%H:%M:%S')" >>"$chain_dir/jobs.txt"
        echo "phase $name: job $job, ${ranks[$name]} ranks, ${configs[$name]}"
    done
}

preset='' chain_dir='' seed='' is_dry_run='' has_checks=1 phases=() remaining=() sbatch_options=()
# shellcheck disable=SC2031  # submit sets them for the jobs.
data_dir="${DATADIR:-}" init_checkpoint="${INIT_CHECKPOINT:-}" distillation_dir="${DISTILLATION_DATADIR:-}"
declare -A configs=() walltimes=() ranks=()
command_line="$(printf '%q ' "$0" "$@")"
parse_arguments "$@"
check_arguments
data_dir="$(absolute "$data_dir")" init_checkpoint="$(absolute "$init_checkpoint")"
distillation_dir="$(absolute "$distillation_dir")"
[[ "$preset" != *.py ]] || preset="$(absolute "$preset")"
read_ranks
check_directory
check_phases
if [ "${#remaining[@]}" -eq 0 ]; then
    echo "all phases are complete in $chain_dir/run_1; nothing was submitted"
    exit 0
fi
[ -n "$is_dry_run" ] || write_files
# submit prints the number of a job on its standard output, and a dry run its command here.
exec 3>&1
submit_all
[ -n "$is_dry_run" ] || echo "progress: python -m benchmark status $chain_dir"
