"""Counts of a step with round numbers, in which DAP divides everything."""

from benchmark.plan.fitting import BENCHMARK_SHAPE
from benchmark.plan.step_counts import (
    PROJECT,
    Collective,
    CountSource,
    LaunchGroup,
    Memory,
    StepCounts,
)


def small_step(code: str, dap: int, **changes) -> StepCounts:
    """Return a step of 10,000 launches of 100 MB and one of matrix products, on one rank."""
    step = {
        "source": CountSource(command="plan counts", commit="abc", date="2026-11-30"),
        "code": code,
        "shape": BENCHMARK_SHAPE,
        "dap": dap,
        "recomputes": False,
        "num_blocks": 48,
        "num_parameters": 93_000_000,
        "launches": [
            LaunchGroup(
                kind="pytorch",
                bytes=1e8 / dap,
                flops=0,
                programs=None,
                gradient=10_000,
                iteration=4_000,
                block=60,
            ),
            LaunchGroup(
                kind="wgmma",
                bytes=1e6,
                flops=1e10 / dap,
                programs=None,
                gradient=1_000,
                iteration=300,
                block=5,
            ),
        ],
        "collectives": []
        if dap == 1
        else [
            Collective(
                what="edges",
                kind="all-gather",
                sent_bytes=8_000_000,
                gradient=1_000,
                iteration=400,
            )
        ],
        "memory": Memory(
            state=2 * 10**9,
            saved=60 * 10**9 // dap,
            saved_recomputed=12 * 10**9 // dap,
            block=10**9 // dap,
            workspace=5 * 10**8,
            graphs=10**9,
        )
        if code == PROJECT
        else None,
    }
    return StepCounts(**(step | changes))
