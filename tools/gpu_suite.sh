#!/usr/bin/env bash
# Everything that only a GPU can show, in less than nine minutes: correctness, times, profile, tests. Records go to a folder.
set -uo pipefail

# After this many seconds a part gets SIGINT, and SIGKILL if it is still there KILL_AFTER seconds later.
KILL_AFTER=15
# A part is not started with less time than this.
LEAST_SECONDS=5

usage() {
    cat <<'TEXT'
usage: tools/gpu_suite.sh [--dry-run-on-cpu] OUTPUT_DIR [PYTHON]

Runs on a machine with a GPU and takes less than 540 seconds. The parts, in this order:

  agreement         one full-size step in bf16 with Triton kernels against reference kernels: losses, gradients, memory
  step_eager        seconds per step without graphs, after 0 and 3 passes without gradient
  step_graphs       the same with CUDA graphs, after 0, 3, 1 and 2 passes; a capture that fails is a finding
  kernels           every operation, fused against reference
  profile           the profile of one step without graphs
  gpu_tests         the tests marked gpu
  kernel_tests      the tests of the kernels, compiled for the GPU
  loader            waiting for batches: direct, pinned and DALI
  kernels_compiled  the operations on pairs against torch.compile

OUTPUT_DIR, which must be empty or absent, gets at most 8 files: a record for each of the first five parts (.json, rewritten after every
figure), trace.json.gz, summary.txt, and details.tar.gz with the log of every part and the other records. A part that fails or is out of
time loses nothing of the others. Time that a part leaves goes to the next ones. Commit the records under results/measured/.

  --dry-run-on-cpu  no measurement: every part with a small preset on a CPU, to see that the suite itself works. step_graphs fails there
  PYTHON            interpreter with torch, triton, numpy, h5py, numba, tqdm and pytest, better with pytest-xdist too (default: python3)
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
# in seconds since the start of this script, as SECONDS is
planned_end=0

# note TEXT: a line of the summary
note() {
    echo "$1" | tee -a "$output/summary.txt"
}

# pack: the small files as one archive, which is replaced as a whole
pack() {
    rm -f "$output"/.*.partial
    tar -czf "$output/.details.partial" -C "$details" . && mv "$output/.details.partial" "$output/details.tar.gz"
}

# part NAME SECONDS COMMAND...: runs the command until SECONDS after the planned end of the part before. Its output goes to the archive,
# and the end of it to the terminal.
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
    # a shell in the background ignores SIGINT, and so would what it starts
    env --default-signal=INT timeout --signal=INT --kill-after="$KILL_AFTER" "$limit" "$@" >"$details/$name.txt" 2>&1 || status=$?
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

# perf NAME SECONDS FOLDER ARGUMENT...: a part that is a measurement, with its record in the folder
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
perf step_eager "$(share 60)" "$output" step --preset "$preset" --graphs off --passes "${passes[@]}" "${few[@]}"
perf step_graphs "$(share 85)" "$output" step --preset "$preset" --graphs on --passes "${graph_passes[@]}" "${few[@]}"
perf kernels "$(share 50)" "$output" kernels "${kernels[@]}"
perf profile "$(share 30)" "$output" step --preset "$preset" --graphs off --passes "${profile_passes[@]}" --repeats 1 --rounds 0 \
    --modules --trace "$output/trace.json.gz"
part gpu_tests "$(share 35)" "${tests[@]}" -m gpu "${gpu_files[@]}"
part kernel_tests "$(share 50)" "${tests[@]}" "${kernel_files[@]}"
perf loader "$(share 10)" "$details" loader --only staging "${staging[@]}"
perf kernels_compiled "$(share 25)" "$details" kernels "${compiled[@]}"

if [ "${#failed[@]}" -gt 0 ]; then
    note "failed or out of time: ${failed[*]}"
    exit 1
fi
