"""Compile the kernels of the benchmark for a GPU in a separate process, and read the record."""

import json
import os
import pathlib
import re
import subprocess
import sys

from openfold_opt.kernels.chips import shared_bytes_of
from openfold_opt.kernels.triton.tuning import shared_memory

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"
WITH_DOT = ("attention", "invariant_point_attention", "outer_product_mean", "transition")
OTHERS = ("global_attention", "layer_norm", "triangle_gate", "dropout_residual", "weight_update")


def run_perf_resources(*arguments, **environment):
    """Run `perf resources` in a process that compiles kernels; this one interprets them."""
    command = [sys.executable, "-m", "benchmark", "perf", "resources", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False
    )


def compile_for(capability, *precisions, only_memory):
    """Return precision -> resources of every kernel; the record is kept in artifacts/."""
    ARTIFACTS.mkdir(exist_ok=True)
    kind = "memory" if only_memory else "resources"
    record = ARTIFACTS / f"kernel_{kind}_sm_{capability}.json"
    arguments = ("--capability", str(capability), "--precision", *precisions, "--json", str(record))
    options = ("--only-memory", "--widest") if only_memory else ()
    process = run_perf_resources(*arguments, *options)
    assert process.returncode == 0, process.stderr[-3000:]
    kernels = json.loads(record.read_text())["figures"]["kernels"]
    return {precision: kernels[f"sm_{capability} {precision}"] for precision in precisions}


def assert_fits(kernels, precision, capability):
    """Assert that the kernels fit the GPU and need no more than the table lists.

    Blackwell is not in the table: it has the limit of Hopper, and its kernels need a few bytes
    more.
    """
    assert {kernel["kernel"].split(".")[0] for kernel in kernels} >= {*WITH_DOT, *OTHERS}
    for kernel in kernels:
        needed, listed = kernel["shared_bytes"], _listed(kernel, precision, capability)
        limit = shared_bytes_of(capability)
        assert needed <= (listed if capability < 100 else limit), (kernel, listed)
        assert listed <= limit, (kernel, listed)


def _listed(kernel, precision, capability):
    operation = kernel["kernel"].split(".")[0]
    if operation not in shared_memory.WIDTHS:
        return shared_memory.LISTED_ABOVE
    constant = shared_memory.WIDTHS[operation]
    width = int(re.search(rf"\b{constant}=(\d+)", kernel["signature"]).group(1))
    return shared_memory.bytes_needed(operation, width, precision, capability)
