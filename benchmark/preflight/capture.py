"""Check that a CUDA graph can be captured, before a run depends on it.

The capture runs in a subprocess, because a failed capture may leave the GPU unusable for it.
"""

from __future__ import annotations

import subprocess
import sys

from benchmark.finding import FAIL, NOTE, PASS, Finding
from openfold_opt.train.config import RunConfig

CHECK = "CUDA graphs"
PROBE = "benchmark.preflight.capture_probe"


def check_capture(
    config: RunConfig,
    preset: str,
    *,
    num_gpus: int,
    timeout_seconds: float,
    phase: str | None = None,
) -> Finding:
    """Capture a small training step with the kernels and the precision of a preset on a GPU.

    Args:
        config: configuration of the preset with the accumulation of the run.
        preset: name of the preset.
        num_gpus: number of GPUs of this process. Without a GPU the check is skipped with a note.
        timeout_seconds: limit of the subprocess, which mostly compiles kernels.
        phase: name or number of the phase of `config`; None: the first one, or the run has none.
    """
    if not config.cuda_graphs:
        text = "not tried: the preset has cuda_graphs=False"
        return Finding(state=NOTE, subject=CHECK, text=text)
    if num_gpus == 0:
        text = "capture not tried: this node has no GPU"
        return Finding(state=NOTE, subject=CHECK, text=text)
    command = [sys.executable, "-m", PROBE, preset, str(config.accumulation)]
    command += [] if phase is None else [phase]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        text = (
            f"the capture of a small step did not end within {timeout_seconds:g} s; raise "
            f"--timeout-seconds, or find where it hangs: {' '.join(command)}"
        )
        return Finding(state=FAIL, subject=CHECK, text=text)
    if finished.returncode != 0:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        text = (
            f"the capture of a small step ended with exit code {finished.returncode}: {last} "
            f"(all messages: {' '.join(command)})"
        )
        return Finding(state=FAIL, subject=CHECK, text=text)
    text = "a small step with the kernels of the preset was captured and replayed"
    return Finding(state=PASS, subject=CHECK, text=text)
