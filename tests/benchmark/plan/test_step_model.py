"""The model of a step: limits that are known without it."""

import dataclasses

import pytest

from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.fitting import fit_factor
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE
from benchmark.plan.step_model import (
    LOOP_LAUNCH_SECONDS,
    MODEL_LAUNCH_SECONDS,
    RAMP_SECONDS,
    Factors,
    Layout,
    expected_maximum,
    predict_step,
    work_seconds,
)
from benchmark.plan.systems import load_system
from tests.support.step_counts import small_step

H100 = load_system("h100_sxm")
A100 = load_system("a100_40_sxm")


def test_a_launch_takes_the_longer_of_memory_and_products():
    memory, matrix = small_step(PROJECT, 1).launches
    rates = H100.chip.sustained
    assert work_seconds(memory, H100.chip) - RAMP_SECONDS == pytest.approx(
        1e8 / (0.7 * rates.bytes_per_second)
    )
    assert work_seconds(matrix, H100.chip) - RAMP_SECONDS == pytest.approx(
        1e10 / (0.5 * rates.matmul_flops_per_second)
    )


def test_few_programs_fill_a_part_of_a_gpu():
    matrix = small_step(PROJECT, 1).launches[1]
    half = dataclasses.replace(matrix, programs=66)
    whole = work_seconds(matrix, H100.chip) - RAMP_SECONDS
    assert work_seconds(half, H100.chip) - RAMP_SECONDS == pytest.approx(2 * whole)


def test_a_memory_bound_step_scales_with_the_bandwidth():
    step = small_step(REFERENCE, 1)
    step = dataclasses.replace(step, launches=step.launches[:1])
    slow, fast = (
        predict_step(step, system, Layout(code=REFERENCE, num_gpus=1)).parts["compute"]
        for system in (A100, H100)
    )
    ramps = RAMP_SECONDS * (10_000 + 1.5 * 4_000)
    assert (slow - ramps) / (fast - ramps) == pytest.approx(3.35 / 1.555)


def test_one_gpu_has_no_transfers_and_no_slower_rank():
    parts = predict_step(small_step(PROJECT, 1), H100, Layout(code=PROJECT, num_gpus=1)).parts
    assert parts["collectives"] == parts["all-reduce"] == parts["slow ranks"] == 0


def test_accumulation_repeats_all_but_the_optimizer():
    step = small_step(PROJECT, 1)
    one, four = (
        predict_step(step, H100, Layout(code=PROJECT, num_gpus=8, accumulation=n)).parts
        for n in (1, 4)
    )
    assert four["compute"] == pytest.approx(4 * one["compute"])
    assert four["optimizer"] == one["optimizer"]


def test_eager_launches_show_only_if_the_gpu_is_faster():
    step = small_step(NVIDIA, 1)
    busy = predict_step(step, H100, Layout(code=NVIDIA, num_gpus=1))
    small = dataclasses.replace(
        step, launches=[dataclasses.replace(each, bytes=1e3, flops=0) for each in step.launches]
    )
    idle = predict_step(small, H100, Layout(code=NVIDIA, num_gpus=1))
    calls = 11_000 + 1.5 * 4_300
    assert busy.parts["launches"] == pytest.approx(calls * 1.2e-6)
    assert idle.parts["launches"] + idle.parts["compute"] == pytest.approx(
        calls * MODEL_LAUNCH_SECONDS
    )


def test_the_host_limits_the_reference_at_large_group_sizes():
    """The host launches as much for a part of a sample as for all of it."""
    host, loops = CODE_BASES[REFERENCE].host_launches, CODE_BASES[REFERENCE].optimizer_launches
    small = small_step(REFERENCE, 8)
    small = dataclasses.replace(
        small, launches=[dataclasses.replace(each, bytes=1e3, flops=0) for each in small.launches]
    )
    parts = predict_step(small, H100, Layout(code=REFERENCE, num_gpus=8, dap=8)).parts
    launches = host.gradient + 1.5 * host.iteration + 1_600
    launches += host.recomputation if small.recomputes else 0
    assert parts["launches"] + parts["compute"] == pytest.approx(launches * MODEL_LAUNCH_SECONDS)
    assert parts["optimizer"] == pytest.approx(loops * LOOP_LAUNCH_SECONDS)


def test_recomputation_is_launched_too():
    step = small_step(REFERENCE, 1)
    small = dataclasses.replace(
        step, launches=[dataclasses.replace(each, bytes=1e3, flops=0) for each in step.launches]
    )
    totals = [
        sum(
            predict_step(
                dataclasses.replace(small, recomputes=recomputes),
                H100,
                Layout(code=REFERENCE, num_gpus=1),
            ).parts[part]
            for part in ("compute", "launches")
        )
        for recomputes in (True, False)
    ]
    more = CODE_BASES[REFERENCE].host_launches.recomputation
    assert totals[0] - totals[1] == pytest.approx(more * MODEL_LAUNCH_SECONDS)


def test_overlap_hides_collectives_of_small_groups():
    """At DAP 8, this project sends small tensors in one piece, which hides nothing."""
    link = H100.within_node
    each = link.latency_seconds + 8e6 / link.bytes_per_second
    for dap, is_hidden in ((4, True), (8, False)):
        waits, own = (
            predict_step(small_step(code, dap), H100, Layout(code=code, num_gpus=8, dap=dap))
            for code in (NVIDIA, PROJECT)
        )
        assert waits.parts["collectives"] == pytest.approx(1_600 * each)
        assert (own.parts["collectives"] < waits.parts["collectives"]) == is_hidden


def test_gradients_that_are_known_at_once_are_reduced_after_the_backward_pass():
    """With DAP 2, NVIDIA's code has graphs of parts of a pass; with DAP 4, of the whole."""
    together, overlapped = (
        predict_step(small_step(NVIDIA, dap), A100, Layout(code=NVIDIA, num_gpus=512, dap=dap))
        for dap in (4, 2)
    )
    sent = 2 * 2 * 93_000_000
    rate = min(A100.within_node.bytes_per_second, 8 * A100.between_nodes.bytes_per_second)
    assert sent / rate < together.parts["all-reduce"] < 3 * sent / rate
    assert overlapped.parts["all-reduce"] < together.parts["all-reduce"] / 4


def test_collectives_between_nodes_are_slower():
    step = small_step(NVIDIA, 8)
    layout = Layout(code=NVIDIA, num_gpus=8, dap=8)
    small_nodes = dataclasses.replace(H100, gpus_per_node=4)
    within, between = (
        predict_step(step, system, layout).parts["collectives"] for system in (H100, small_nodes)
    )
    assert between > 5 * within


def test_a_fit_finds_the_factor():
    step = small_step(NVIDIA, 4)
    layout = Layout(code=NVIDIA, num_gpus=128, dap=4)
    measured = predict_step(step, A100, layout, Factors(by_code={NVIDIA: 1.7})).total
    assert fit_factor(layout, A100, step, measured) == pytest.approx(1.7, rel=1e-6)


def test_a_calibration_scales_its_class():
    system = dataclasses.replace(H100, calibration={"pytorch": 2.0})
    step = small_step(PROJECT, 1)
    step = dataclasses.replace(step, launches=step.launches[:1])
    layout = Layout(code=PROJECT, num_gpus=1)
    before, after = (predict_step(step, each, layout).parts["compute"] for each in (H100, system))
    assert after == pytest.approx(2 * before)


def test_the_largest_of_many_normal_values_grows_slowly():
    assert expected_maximum(1) == 0
    assert expected_maximum(2) == pytest.approx(0.56, abs=0.03)
    assert expected_maximum(2048) == pytest.approx(3.4, abs=0.1)
