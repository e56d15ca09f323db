"""Small records and systems of CPUs with known rates."""

from __future__ import annotations

import json

from benchmark.perf.tools.call_trace import VIEW, CallGroup
from benchmark.perf.tools.pass_counts import CpuCollective, PassCounts
from benchmark.perf.tools.perf_record import to_json
from benchmark.perf.tools.step_calls import ShardedStep, StepCalls
from benchmark.plan.cpu_rates import NEAR_BYTES, CallOverhead, CpuRates, WorkRate
from benchmark.plan.cpu_system import CpuSystem

NEAR, FAR, FLOP, LOOP = 2e-11, 1e-10, 1e-11, 5e-9
"""Seconds of a near and a far byte, of an operation and of an inner loop."""
CALL, CONSTANT = 4e-6, 2e-6
"""Seconds of a call besides its work, and the constant of a timed call."""
KINDS = ("all-gather", "all-reduce", "all-to-all", "reduce-scatter")


def timed(operator: str, size: float, *, flops: float = 0.0, loops: float = 1.0) -> CallGroup:
    """Return calls that take exactly what the rates give."""
    work = min(size, NEAR_BYTES) * NEAR + max(0.0, size - NEAR_BYTES) * FAR
    work += flops * FLOP + (loops - 1) * LOOP
    return CallGroup(
        operator=operator,
        direction="forward",
        calls=50,
        bytes=size,
        flops=flops,
        loops=loops,
        seconds=CONSTANT + work,
    )


def step_calls() -> list[StepCalls]:
    """Return the calls of two steps with known rates."""
    calls = [
        timed("mul", size, loops=loops)
        for size, loops in ((1e3, 1), (1e4, 900), (1e5, 1), (1e6, 4000), (1e7, 1), (3e7, 1))
    ]
    calls += [
        timed("mm", size, flops=flops)
        for size, flops in ((1e4, 1e5), (1e5, 1e8), (1e6, 1e7), (1e7, 1e9), (3e7, 1e9), (5e6, 1e6))
    ]
    views = CallGroup(
        operator=VIEW, direction="backward", calls=100, bytes=0, flops=0, loops=0, seconds=1e-6
    )
    return [
        # Views alone, and a large step whose calls take twice as long besides their work.
        StepCalls(calls=[views], seconds=[100 * CALL] * 3, waited_share=0.02),
        StepCalls(
            calls=calls,
            seconds=[sum(each.calls * (each.seconds - CONSTANT + 2 * CALL) for each in calls)] * 3,
            waited_share=0.03,
        ),
    ]


def kernels_record(**figures) -> dict:
    """Return a record of `perf kernels --calls` on a CPU."""
    return {
        "measurement": "kernels",
        "date": "2026-11-30",
        "machine": {"processor": "Some CPU (R) 3", "cpu_count": 2},
        "figures": {
            "device": "cpu",
            "threads": 1,
            "num_processes": 2,
            "calls": to_json(step_calls()),
            **figures,
        },
    }


def sharded_step() -> ShardedStep:
    """Return a step that waits 2 ms at each collective, besides latency and bytes."""
    step = step_calls()[1]
    sent = CpuCollective(kind="all-gather", sent_bytes=10**6, calls=4)
    return ShardedStep(
        counts=PassCounts(calls=step.calls, collectives=[sent]),
        seconds=[step.seconds[0] + 4 * (3e-4 + 1e-3 + 2e-3)] * 3,
    )


def comm_record() -> dict:
    """Return a record of `perf comm` with gloo."""
    fit = {"latency_seconds": 3e-4, "bytes_per_second": 1e9}
    return {
        "measurement": "comm",
        "machine": {"processor": "Some CPU (R) 3", "cpu_count": 2},
        "figures": {
            "device": "cpu",
            "num_ranks": 2,
            "fits": dict.fromkeys(KINDS, fit),
            "sharded_steps": [to_json(sharded_step())],
        },
    }


def cpu_system(**changes) -> CpuSystem:
    """Return a system of two cores without collectives."""
    work = WorkRate(
        seconds_per_near_byte=NEAR,
        seconds_per_far_byte=FAR,
        seconds_per_flop=FLOP,
        seconds_per_loop=LOOP,
    )
    rates = CpuRates(
        overheads=[CallOverhead(bytes_per_call=1e3, seconds=CALL)],
        operators={},
        others=work,
    )
    values = {
        "name": "some_cpu",
        "processor": "Some CPU",
        "num_cores": 2,
        "num_processes": 2,
        "rates": rates,
        "sources": {"rates": "a test"},
    }
    return CpuSystem(**(values | changes))


def write_json(path, value):
    """Write a value to a file, and return its path."""
    path.write_text(json.dumps(to_json(value)))
    return path
