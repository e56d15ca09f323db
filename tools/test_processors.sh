#!/usr/bin/env bash
# Runs the test suite with the instruction sets of other processors, and the comparison with golden
# results with one and two threads.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: tools/test_processors.sh [--out FILE] [PYTEST ARGUMENT ...]

Runs the test suite once for each instruction set that PyTorch can be limited to: with
ATEN_CPU_CAPABILITY=default and, where /proc/cpuinfo lists them, avx2 and avx512. That variable does
not reach MKL, so the suite runs once more with MKL_CBWR=COMPATIBLE. Then `python -m benchmark
parity` compares every golden directory with one and with two threads; this is skipped if
OPENFOLD_SHARED does not name the folder with golden results.
All variants run even if one fails. The last lines have the result of each variant.

Further arguments go to pytest, for example: tools/test_processors.sh tests/model

  --out FILE  write the machine, the versions and the results to FILE, too
  -h, --help     show this

Exit code: 0 if no variant failed, 1 if any failed, 2 if nothing could run.
TEXT
}

output=""
case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
--out)
    if [ -z "${2:-}" ]; then
        echo "test_processors: --out needs the name of a file; see --help" >&2
        exit 2
    fi
    output="$(realpath -m "$2")"
    shift 2
    ;;
esac

root="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root" || exit 2
# shellcheck source=tools/environment.sh
. "$root/tools/environment.sh"
prepare_environment tests || exit 2

results=()
num_failed=0

# record NAME STATUS SECONDS DETAIL
record() {
    results+=("$(printf '%-32s %-7s %6d s  %s' "$1" "$2" "$3" "$4")")
    if [ "$2" = FAILED ]; then
        num_failed=$((num_failed + 1))
    fi
}

# variant NAME COMMAND...: run a command and show its output, whose last line becomes the result.
variant() {
    local name="$1" start="$SECONDS" status=passed log
    shift
    log="$(mktemp)"
    echo "== $name"
    if ! "$@" 2>&1 | tee "$log"; then
        status=FAILED
    fi
    record "$name" "$status" "$((SECONDS - start))" "$(grep -v '^[[:space:]]*$' "$log" | tail -n 1)"
    rm -f "$log"
}

# PyTorch does not check the variable: an instruction set that the processor lacks would kill the
# tests
capabilities=(default)
if grep -qw avx2 /proc/cpuinfo; then
    capabilities+=(avx2)
fi
if grep -qw avx512f /proc/cpuinfo; then
    capabilities+=(avx512)
fi
for capability in "${capabilities[@]}"; do
    variant "ATEN_CPU_CAPABILITY=$capability" env "ATEN_CPU_CAPABILITY=$capability" ./run_tests.sh "$@"
done
variant "MKL_CBWR=COMPATIBLE" env MKL_CBWR=COMPATIBLE ./run_tests.sh "$@"
for threads in 1 2; do
    if [ -z "${OPENFOLD_SHARED:-}" ]; then
        record "parity, $threads thread(s)" skipped 0 "OPENFOLD_SHARED is not set"
        continue
    fi
    variant "parity, $threads thread(s)" env "OMP_NUM_THREADS=$threads" \
        "$PYTHON" -m benchmark parity --threads "$threads" \
        "$OPENFOLD_SHARED"/golden/model_{tiny,quirks,full}
done

# describe: what the results belong to
describe() {
    date -u '+%Y-%m-%d, UTC'
    echo "commit: $(git rev-parse HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD 2>/dev/null || echo ', with changes')"
    echo "processor: $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
    "$PYTHON" -c 'import torch; print(f"torch {torch.__version__}, CPU capability {torch.backends.cpu.get_cpu_capability()}")'
    if [ "$#" -gt 0 ]; then
        echo "pytest arguments: $*"
    fi
}

summary="$(describe "$@" && printf '%s\n' "${results[@]}")"
printf '\n%s\n' "$summary"
if [ -n "$output" ]; then
    printf '%s\n' "$summary" >"$output"
fi
if [ "$num_failed" -gt 0 ]; then
    echo "test_processors: $num_failed of ${#results[@]} variants failed" >&2
    exit 1
fi
