"""Costs of dynamic axial parallelism with the sizes of the benchmark.

The tests count the bytes kept for the backward pass and the collectives of a block.
"""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelConfig, counted_axis
from openfold_opt.train.memory_plan import count_saved_bytes
from tests.support.axial_block import NUM_RES, NUM_SEQ, benchmark_stack, run_stack

DEFAULT = ParallelConfig()
TABLE = Path(__file__).resolve().parents[2] / "docs" / "dap.md"


@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_a_rank_keeps_only_its_share_of_the_activations(kernels):
    if kernels == "triton":
        pytest.importorskip("triton")
    stack = benchmark_stack(1)

    def kept(dap_size: int) -> int:
        return count_saved_bytes(
            lambda: run_stack(stack, AxisGroup.fake("dap", size=dap_size), kernels=kernels),
            stack,
        )

    whole = kept(1)
    for dap_size, share in ((2, 0.55), (4, 0.30), (8, 0.18)):
        assert kept(dap_size) <= share * whole, (
            f"{kernels} at DAP-{dap_size}: {kept(dap_size) / whole:.3f}"
        )


def collectives_of_a_block(dap_size: int, config: ParallelConfig = DEFAULT) -> Counter:
    """Count (what, kind, bytes sent) in forward and backward of one block."""
    launched: Counter = Counter()
    axis = dataclasses.replace(
        counted_axis(config, size=dap_size), on_launch=lambda *call: launched.update([call])
    )
    m, z = run_stack(benchmark_stack(1), axis, kernels="reference")
    (m.sum() + z.sum()).backward()
    return launched


def documented_collectives() -> Counter:
    """Read the same counts at DAP-8 from the table in docs/dap.md."""
    rows = [
        line.strip("| \n").split(" | ")
        for line in TABLE.read_text().splitlines()
        if line.count(" | ") == 5
    ]
    return Counter(
        {
            (what.partition(",")[0], kind, int(sent.replace(",", ""))): int(times)
            for what, kind, _, times, sent, _ in rows
            if times.isdigit()
        }
    )


def test_the_documented_table_of_collectives_is_correct():
    assert collectives_of_a_block(8) == documented_collectives()


@pytest.mark.parametrize("dap_size", [2, 4, 8])
def test_chunks_that_would_be_small_are_sent_together(dap_size):
    """Only biases, which are not divided into chunks, are smaller than the minimum."""
    joined, chunked = (
        collectives_of_a_block(dap_size, config)
        for config in (DEFAULT, dataclasses.replace(DEFAULT, dap_min_chunk_bytes=0))
    )
    small = {what for what, _, sent in joined if sent < DEFAULT.dap_min_chunk_bytes}
    assert small <= {"pair bias", "triangle bias"}
    sent_bytes = [
        sum(times * call[2] for call, times in each.items()) for each in (joined, chunked)
    ]
    assert sent_bytes[0] == sent_bytes[1]
    assert joined.total() < chunked.total()


def test_the_documented_bytes_of_dap_and_tensor_parallelism_are_correct():
    cells = r"([\d.]+) \| \(?([\d.]+)\)? \| \(?([\d.]+)"
    rows = re.findall(rf"^\| (\d) \| {cells}", TABLE.read_text(), re.MULTILINE)
    assert [int(ranks) for ranks, *_ in rows] == [2, 4, 8]
    representation = 2 * NUM_RES * NUM_RES * 128
    assert representation == 2 * NUM_SEQ * NUM_RES * 256
    for ranks, dap, tensor, ratio in rows:
        number = int(ranks)
        calls = collectives_of_a_block(number)
        sent = sum(size * times for (_, _, size), times in calls.items())
        reduced = 12 * 2 * (number - 1) / number * representation
        assert f"{sent / 1e6:.1f}" == dap and f"{reduced / 1e6:.1f}" == tensor
        assert f"{reduced / sent:.1f}" == ratio


def test_one_rank_starts_no_collectives():
    launched: list[tuple] = []
    axis = dataclasses.replace(
        AxisGroup.single("dap"), on_launch=lambda *call: launched.append(call)
    )
    m, z = run_stack(benchmark_stack(1), axis, kernels="reference")
    (m.sum() + z.sum()).backward()
    assert m.shape == (1, 128, 256, 256) and z.shape == (1, 256, 256, 128)
    assert launched == []
