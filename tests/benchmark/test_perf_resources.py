"""Every kernel at every training shape of the benchmark compiles, and none spills on the chip that it is made for."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts"


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile(capability):
    ARTIFACTS.mkdir(exist_ok=True)
    record = ARTIFACTS / f"kernel_resources_sm_{capability}.json"
    command = [sys.executable, "-m", "benchmark", "perf", "resources", "--capability", str(capability), "--json", str(record)]
    # a process of its own: in this one, kernels are interpreted
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    kernels = json.loads(record.read_text())["figures"]["kernels"][f"sm_{capability} bf16"]
    names = {kernel["kernel"].split(".")[0] for kernel in kernels}
    assert names >= {"attention", "global_attention", "invariant_point_attention", "layer_norm", "outer_product_mean", "transition"}
    if capability == 90:
        spilled = [kernel for kernel in kernels if kernel["spills"] or kernel["stack_bytes"]]
        assert spilled == []


def test_the_interpreter_cannot_compile():
    command = [sys.executable, "-m", "benchmark", "perf", "resources"]
    finished = subprocess.run(command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert finished.returncode == 2 and "TRITON_INTERPRET is set" in finished.stderr
