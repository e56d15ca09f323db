#!/usr/bin/env bash
# Runs all measurements and tests that need a GPU in less than nine minutes, and writes records to a
# folder.
set -uo pipefail

# A part that exceeds its time gets SIGINT, and SIGKILL after this many further seconds.
KILL_AFTER=15
# A part does not start with less time than this.
LEAST_SECONDS=5

usage() {
    cat <<'TEXT'
usage: tools/gpu_suite.sh [--dry-run-on-cpu] OUTPUT_DIR [PYTHON]

Runs on a machine with a GPU and takes less than 540 seconds. The parts, in this order:

  agreement         one full-size step in bf16 with Triton kernels against reference kernels: losses,
                    gradients, memory
  step_eager        seconds per step without graphs, with 0 and 3 recycling iterations
  step_graphs       the same with CUDA graphs and 0, 3, 1 and 2 recycling iterations; fails if a
                    capture fails
  kernels           every operation, fused against reference; residual attention in one launch
                    against separate operations
  profile           the profile of one step without graphs
  gpu_tests         the tests marked gpu
  kernel_tests      the tests of the kernels, compiled for the GPU
  loader            waiting for batches: direct, pinned and DALI
  kernels_compiled  the operations on pairs against torch.compile

OUTPUT_DIR must be empty or absent. It gets at most 8 files: a record for each of the first five
parts (.json, rewritten after every measurement), trace.json.gz, summary.txt, and details.tar.gz with
the log of every part and the other records. A part that fails or is out of time does not affect the others.
Unused time of a part goes to the next ones. Commit the records under results/measured/.

  --dry-run-on-cpu  run every part with a small preset on a CPU, to test the suite itself. It
                    measures nothing, and step_graphs fails
  PYTHON            interpreter with torch, triton, numpy, h5py, numba, tqdm, pytest and preferably
                    pytest-xdist (default: python3)
  -h, --help        show this

Exit code: 0; 1 if a part failed or was out of time; 2 without a GPU or with wrong arguments.
TEXT
}

refuse() {
    echo "gpu_suite: $1" >&2
    exit 2
}

is_dry_run=false
case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
--dry-run-on-cpu)
    is_dry_run=true
    shift
    ;;
esac
if [ "$#" -lt 1 ] || [ "$#" -gt 2 ] || [ "${1#-}" != "$1" ]; then
    usage >&2
    exit 2
fi

python="${2:-python3}"
has_gpu="$("$python" -c 'import torch; print(torch.cuda.is_available())' 2>&1 | tail -n 1)"
if ! $is_dry_run && [ "$has_gpu" != True ]; then
    [ "$has_gpu" = False ] || refuse "$python cannot import torch: $has_gpu"
    refuse "PyTorch sees no GPU on this machine; run the suite on one that has a GPU"
fi
mkdir -p "$1" || exit 2
output="$(cd "$1" && pwd)"
[ -z "$(ls -A "$output")" ] || refuse "$1 is not empty; name an empty or a new folder"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

details="$(mktemp -d)"
trap 'rm -rf "$details"' EXIT
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
failed=()
# In seconds since the start of this script, like SECONDS.
planned_end=0

# note TEXT: add a line to the summary.
note() {
    echo "$1" | tee -a "$output/summary.txt"
}

# pack: replace the archive of the small files by a new one.
pack() {
    rm -f "$output"/.*.partial
    tar -czf "$output/.details.partial" -C "$details" . && mv "$output/.details.partial" "$output/details.tar.gz"
}

# part NAME SECONDS COMMAND...: run a command until at most SECONDS after the planned end of the
# previous part. Its output goes to the archive, and the end of the output to the terminal.
part() {
    local name="$1" limit status=0 started=$SECONDS verdict
    planned_end=$((planned_end + $2))
    limit=$((planned_end - SECONDS))
    shift 2
    if [ "$limit" -lt "$LEAST_SECONDS" ]; then
        failed+=("$name")
        note "$name: not run, no time is left"
        return
    fi
    echo "== $name, at most $limit s: $*"
    # A shell in the background ignores SIGINT, and its children inherit that.
    env --default-signal=INT timeout --signal=INT --kill-after="$KILL_AFTER" "$limit" "$@" \
        >"$details/$name.txt" 2>&1 || status=$?
    case "$status" in
    0) verdict=passed ;;
    124) verdict="out of time, interrupted" ;;
    137) verdict="out of time, killed" ;;
    *) verdict="failed with exit code $status" ;;
    esac
    [ "$status" -eq 0 ] || failed+=("$name")
    tail -n 25 "$details/$name.txt"
    note "$name: $verdict, $((SECONDS - started)) s"
    pack
}

# perf NAME SECONDS FOLDER ARGUMENT...: run a measurement as a part, with its record in a folder.
perf() {
    local name="$1" seconds="$2" folder="$3"
    shift 3
    part "$name" "$seconds" "$python" -m benchmark perf "$@" --json "$folder/$name.json"
}

gpu_files=()
while IFS= read -r file; do
    gpu_files+=("$file")
done < <(grep -rlE --include='test_*.py' 'pytest\.mark\.gpu' tests | sort)
kernel_files=(tests/kernels/triton tests/model/test_fused_kernels.py)
tests=("$python" -m pytest -v -rfE --durations=15 -p no:cacheprovider --continue-on-collection-errors)

# Shares of the time in seconds. Their sum and KILL_AFTER are less than 540.
if $is_dry_run; then
    preset=demo
    few=(--repeats 1 --rounds 1)
    passes=(0)
    graph_passes=(0)
    profile_passes=(0)
    kernels=(--preset demo --only dropout_residual --repeats 2)
    compiled=("${kernels[@]}")
    staging=(--staging-steps 2 --crop 16)
    kernel_files=(tests/kernels/triton/test_triton_dropout_residual.py)
    share() { echo 120; }
else
    preset=mlperf_fast
    few=(--repeats 8 --rounds 1)
    passes=(0 3)
    graph_passes=(0 3 1 2)
    profile_passes=(1)
    kernels=(--without FlexAttention)
    compiled=(--without FlexAttention --compile --only pair)
    staging=()
    share() { echo "$1"; }
    if "$python" -c 'import xdist' 2>/dev/null; then
        workers="$(nproc)"
        tests+=(-n "$((workers < 12 ? workers : 12))")
    else
        note "pytest-xdist is not installed: the tests run in one process and may not finish"
    fi
fi

{ date -u +%FT%TZ; nvidia-smi; } >"$details/gpu.txt" 2>&1
note "$($is_dry_run && echo 'DRY RUN ON A CPU: these are no measurements; ')$("$python" --version)"
perf agreement "$(share 175)" "$output" agreement --preset "$preset" --passes "${profile_passes[0]}"
perf step_eager "$(share 60)" "$output" step --preset "$preset" --graphs off \
    --passes "${passes[@]}" "${few[@]}"
perf step_graphs "$(share 85)" "$output" step --preset "$preset" --graphs on \
    --passes "${graph_passes[@]}" "${few[@]}"
perf kernels "$(share 50)" "$output" kernels "${kernels[@]}"
perf profile "$(share 30)" "$output" step --preset "$preset" --graphs off \
    --passes "${profile_passes[@]}" --repeats 1 --rounds 0 --modules --trace "$output/trace.json.gz"
part gpu_tests "$(share 35)" "${tests[@]}" -m gpu "${gpu_files[@]}"
part kernel_tests "$(share 50)" "${tests[@]}" "${kernel_files[@]}"
perf loader "$(share 10)" "$details" loader --only staging "${staging[@]}"
perf kernels_compiled "$(share 25)" "$details" kernels "${compiled[@]}"

if [ "${#failed[@]}" -gt 0 ]; then
    note "failed or out of time: ${failed[*]}"
    exit 1
fi
