"""Run the whole forward on device meta at the lengths of the plans, and compare its peak.

    python -m tests.predict.long_chains

Every block of every step runs, with one block of each stack; the plan runs only the first ones.
Takes minutes and little memory. The exit code is 1 if a peak differs from its plan by more than 5%,
or if a chain does not fit.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.model.config import ModelConfig
from openfold_opt.predict.memory_plan import plan_memory
from openfold_opt.predict.traced_prediction import meta_kernels, trace_prediction, traced_model

CASES = ((10_000, "a100-80", 1), (15_000, "h200", 1), (30_000, "h200", 8))
"""Residues, device and number of GPUs."""
VARIANTS = ((0, 1024), (0, 5120), (4, 1024))
"""Templates and rows of the extra MSA."""
TOLERANCE = 0.05


def main() -> int:
    config, failures = ModelConfig(), 0
    model = traced_model(config, "bf16")
    kernels = meta_kernels(KernelConfig.all("triton"), model)
    for num_residues, device, dap_size in CASES:
        for num_templates, extra_rows in VARIANTS:
            plan = plan_memory(
                config=config,
                num_residues=num_residues,
                max_msa_clusters=512,
                max_extra_msa=extra_rows,
                num_templates=num_templates,
                num_passes=2,
                dtype="bf16",
                device=device,
                dap_size=dap_size,
            )
            started = time.perf_counter()
            sizes = replace(plan.sizes, num_passes=2)
            trace = trace_prediction(model, sizes, kernels, plan.division, is_outline=False)
            difference = trace.largest / plan.forward_bytes - 1
            is_right = plan.fits and abs(difference) <= TOLERANCE
            failures += not is_right
            print(
                f"{num_residues:6,} residues, {num_templates} templates, {extra_rows:,} extra "
                f"rows, {dap_size} x {device}: plan {plan.peak_bytes / 1e9:.1f} GB, the whole "
                f"forward {difference:+.2%} ({time.perf_counter() - started:.0f} s) "
                f"{'ok' if is_right else 'FAILED'}",
                flush=True,
            )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
