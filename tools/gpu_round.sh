#!/usr/bin/env bash
# Everything that only a GPU can show, in one go of less than ten minutes: tests, steps, kernels. Records go to a folder.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: tools/gpu_round.sh OUTPUT_DIR [PYTHON]

Runs on a machine with a GPU and leaves in OUTPUT_DIR: tests.txt, and for each measurement a record (.json) and its
table (.txt), and a trace. Commit the records under results/measured/. A part that fails or runs out of
time is told at the end and does not stop the others; the exit code is then 1.

  PYTHON      interpreter with torch, triton, numpy, h5py, tqdm and pytest; the tests of the loader want numba and
              gemmi too (default: python3)
  -h, --help  show this
TEXT
}

case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
"")
    usage >&2
    exit 2
    ;;
esac

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
mkdir -p "$1"
output="$(cd "$1" && pwd)"
python="${2:-python3}"
cd "$root" || exit 2
failed=()

# part NAME SECONDS COMMAND...: its output to NAME.txt, and the end of it to the terminal
part() {
    local name="$1" seconds="$2"
    shift 2
    echo "== $name: $*"
    if ! timeout --kill-after=10 "$seconds" "$@" >"$output/$name.txt" 2>&1; then
        failed+=("$name")
    fi
    tail -n 25 "$output/$name.txt"
}

nvidia-smi >"$output/gpu.txt" 2>&1
# by name: a machine for measurements need not have what the other tests import
part tests 60 "$python" -m pytest -m gpu -q tests/train/test_step_graphs.py tests/train/test_evaluation_graphs.py
part loader_tests 30 "$python" -m pytest -m gpu -q tests/loader/test_staging.py tests/loader/test_expand.py
# without an interpreter these run the kernels on the GPU
part kernel_tests 100 "$python" -m pytest -q tests/kernels/triton tests/model/test_fused_kernels.py
part step 200 "$python" -m benchmark perf step --preset mlperf_fast --passes 0 3 1 2 --rounds 1 --repeats 10 \
    --modules --trace "$output/trace.json.gz" --json "$output/step.json"
part kernels 120 "$python" -m benchmark perf kernels --json "$output/kernels.json"
part kernels_compiled 80 "$python" -m benchmark perf kernels --compile --only pair --json "$output/kernels_compiled.json"

if [ "${#failed[@]}" -gt 0 ]; then
    echo "gpu_round: failed or out of time: ${failed[*]}; see $output" >&2
    exit 1
fi
