"""Seconds of an evaluation of whole chains."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.step_counts import LaunchGroup, StepCounts
from benchmark.plan.step_model import Factors, Layout, work_seconds
from benchmark.plan.systems import System

CHAINS = 180
LONGEST_CHAIN = 700
_MEDIAN_LENGTH, _LENGTH_SPREAD = 230, 0.6
"""Median and logarithmic spread of the lengths of the chains that are evaluated; assumed."""
_LENGTH_EXPONENT = 1.8
"""The time of a chain grows with its length to this power.

Counted: a pass of NVIDIA's code with 512 instead of 256 residues moves 3.6 times the bytes, the
power of 1.84. With the start and end of its launches, the model has 1.70 on H100 and 1.82 on A100.
"""
_PASSES = 4
_NUM_ORDERS = 200
"""Random orders of the chains over which the busiest rank is averaged."""


def evaluation_seconds(
    counts: StepCounts, system: System, layout: Layout, factors: Factors, *, crop: int
) -> float:
    """Return the time to evaluate CHAINS chains, each on one rank, with four passes.

    counts: of DAP 1, for samples of the crop size. The evaluation ends on the busiest rank.
    """
    code, chip = CODE_BASES[layout.code], system.chip
    groups = counts.launches
    if code.evaluates_in_float32:
        groups = [_in_float32(group) for group in groups]
    one_pass = factors.of(layout.code) * sum(
        group.iteration * (work_seconds(group, chip) + chip.sustained.launch_seconds)
        for group in groups
    )
    times = [_PASSES * one_pass * (length / crop) ** _LENGTH_EXPONENT for length in chain_lengths()]
    ranks = min(layout.evaluation_ranks or layout.num_gpus, CHAINS)
    if code.evaluates_in_order:
        return _busiest_in_order(times, ranks)
    return _busiest_balanced(times, ranks)


def chain_lengths() -> list[float]:
    """Return CHAINS lengths with a log-normal distribution, cut at LONGEST_CHAIN."""
    normal = statistics.NormalDist()
    return [
        min(
            LONGEST_CHAIN,
            _MEDIAN_LENGTH * math.exp(_LENGTH_SPREAD * normal.inv_cdf((i + 0.5) / CHAINS)),
        )
        for i in range(CHAINS)
    ]


def _in_float32(group: LaunchGroup) -> LaunchGroup:
    """Return launches on bfloat16 tensors as those on float32 tensors."""
    kind = "cublas_float32" if group.kind == "cublas" else group.kind
    return replace(group, bytes=2 * group.bytes, kind=kind)


def _busiest_in_order(times: Sequence[float], ranks: int) -> float:
    """Return the mean time of the busiest rank if rank r has the chains r, r + ranks, and so on.

    The lengths of the chains in the order of the data set are not known, so the mean is over
    random orders. Chains are repeated until all ranks have the same number.
    """
    generator = np.random.default_rng(0)
    orders = generator.permuted(np.tile(times, (_NUM_ORDERS, 1)), axis=1)
    padding = -len(times) % ranks
    padded = np.concatenate([orders, orders[:, :padding]], axis=1)
    sums = padded.reshape(_NUM_ORDERS, -1, ranks).sum(axis=1)
    return float(sums.max(axis=1).mean())


def _busiest_balanced(times: Sequence[float], ranks: int) -> float:
    """Return the time of the busiest rank if each chain, longest first, goes to the idlest rank."""
    loads = [0.0] * ranks
    for seconds in sorted(times, reverse=True):
        loads[loads.index(min(loads))] += seconds
    return max(loads)
