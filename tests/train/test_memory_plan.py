"""How many blocks are computed again, for memories of several sizes."""

import dataclasses

import pytest
import torch

from benchmark.presets import build_preset
from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.train import memory_plan
from openfold_opt.train.memory_plan import plan_recomputation, saved_bytes
from openfold_opt.train.synthetic_features import synthetic_batch
from tests.support.devices import DEVICES
from tests.train.synthetic import tiny_config
from tests.train.test_step_graphs import micro_batch, new_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config():
    """Six Evoformer blocks behind two of each other stack."""
    config = tiny_config(recompute="auto")
    model = config.model
    stacks = {
        "evoformer_stack": dataclasses.replace(model.evoformer_stack, num_blocks=6),
        "extra_msa_stack": dataclasses.replace(model.extra_msa_stack, num_blocks=2),
    }
    return dataclasses.replace(config, model=dataclasses.replace(model, **stacks))


@pytest.fixture(scope="module")
def kept(config):
    return [
        saved_bytes(config, config.kernels, num_recomputed_blocks=number) for number in range(7)
    ]


def test_every_block_that_is_computed_again_saves_memory(kept):
    steps = [a - b for a, b in zip(kept, kept[1:])]
    assert all(step > 0 for step in steps)
    # once the other stacks are through, by the same amount (a mask more or less)
    assert max(steps[2:]) < 1.01 * min(steps[2:])


@pytest.mark.parametrize("between", [0.0, 0.5])
@pytest.mark.parametrize("number", range(7))
def test_as_few_as_fit(config, kept, number, between, monkeypatch):
    state = memory_plan._state_bytes(config)
    wanted = kept[number] + between * (kept[max(number - 1, 0)] - kept[number])
    needed = state + wanted / memory_plan.SHARE_FOR_ACTIVATIONS
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: needed + 1)
    found = plan_recomputation(config, CPU)
    assert found == number
    assert kept[found] <= memory_plan.SHARE_FOR_ACTIVATIONS * (needed + 1 - state)


def test_what_cannot_fit_is_an_error(config, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match="even if all blocks are computed again"):
        plan_recomputation(config, CPU)


def test_all_or_none_need_no_sizes(config):
    assert plan_recomputation(dataclasses.replace(config, recompute=True), CPU) == ALL_BLOCKS
    assert plan_recomputation(dataclasses.replace(config, recompute=False), CPU) == 0
    with pytest.raises(ValueError, match='expected True, False or "auto"'):
        dataclasses.replace(config, recompute="some")


def bytes_kept_by(forward, model, device):
    """What a real forward pass leaves in memory for the backward pass, besides the parameters: on a
    GPU as the allocator counts it, on a CPU the storages that autograd saves."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        result = forward()
        torch.cuda.synchronize()
        kept = torch.cuda.memory_allocated(device) - before
        del result
        return kept
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = {}

    def keep(x):
        found.setdefault(x.untyped_storage().data_ptr(), x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        forward()
    return sum(
        x.untyped_storage().nbytes() for pointer, x in found.items() if pointer not in parameters
    )


@pytest.mark.parametrize("device", DEVICES)
def test_the_plan_counts_the_bytes_of_a_real_forward_pass(config, device):
    device = torch.device(device)
    if device.type == "cuda":
        # large enough that the allocator's rounding and cached tables do not count
        config = dataclasses.replace(build_preset("middle"), recompute="auto")
    model = AlphaFold(config.model).to(device)
    features = synthetic_batch(config.data, batch_size=1, num_passes=1)
    batch = FeatureBatch.from_features(features).to(device)
    kernel_config = KernelConfig.all("triton" if device.type == "cuda" else "reference")
    kernels = build_kernel_set(kernel_config, device, config.model.kernel_shapes())
    plan = dataclasses.replace(ExecutionPlan.reference(), kernels=kernels)

    def forward():
        outputs = model(batch, plan, num_recycling_iterations=0)
        return AlphaFoldLoss(config.loss)(outputs, batch.at_pass(0))

    if device.type == "cuda":
        forward()  # makes what stays: compiled kernels, workspaces, tables
    expected = saved_bytes(config, kernel_config, num_recomputed_blocks=0)
    tolerance = 0.05 if device.type == "cuda" else 0.02
    assert bytes_kept_by(forward, model, device) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_stays_below_the_memory_that_the_plan_asks_for(config, device):
    """The most that is ever allocated, against state plus activations over their share."""
    device = torch.device(device)
    preset = build_preset("middle") if device.type == "cuda" else config
    kernels = KernelConfig.all("triton" if device.type == "cuda" else "reference")
    preset = dataclasses.replace(preset, device=device.type, recompute=False, kernels=kernels)
    step = new_step(preset, device.type)
    batch = micro_batch(preset, 1, device=device.type)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    assert step.run([batch], step=1, num_recycling_iterations=1).read().is_applied
    planned = memory_plan._state_bytes(preset)
    planned += (
        saved_bytes(preset, kernels, num_recomputed_blocks=0) / memory_plan.SHARE_FOR_ACTIVATIONS
    )
    if device.type == "cuda":
        assert torch.cuda.max_memory_allocated(device) <= planned


@pytest.mark.parametrize(
    ("graphs_gib", "numbers"), [(0.0, {80: 0, 40: 15}), (3.8, {80: 0, 40: 18})]
)
def test_the_fast_preset_fits_into_80_gib_as_a_whole_and_into_40_in_part(
    monkeypatch, graphs_gib, numbers
):
    config = build_preset("mlperf_fast")
    sizes = {}
    monkeypatch.setattr(
        memory_plan,
        "saved_bytes",
        lambda config, kernels, *, num_recomputed_blocks, dap_size: sizes[num_recomputed_blocks],
    )
    graphs = graphs_gib * 2**30
    monkeypatch.setattr(memory_plan, "graph_memory_bytes", lambda config, kernels: graphs)
    # GiB, as counted by saved_bytes
    sizes.update(
        {
            number: int(gib * 2**30)
            for number, gib in ((0, 51.42), (1, 48.9), (2, 46.3), (3, 43.7), (4, 41.14), (48, 2.46))
        }
    )
    for gib, number in numbers.items():
        monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device, gib=gib: gib * 2**30)
        assert plan_recomputation(config, torch.device("cuda")) == number


def test_graphs_take_memory_from_what_a_step_may_keep(config, kept, monkeypatch):
    """Just enough for two recomputed blocks; with graphs, only if their memory is free as well."""
    graphs = 10**9
    monkeypatch.setattr(memory_plan, "graph_memory_bytes", lambda config, kernels: graphs)
    needed = memory_plan._state_bytes(config) + kept[2] / memory_plan.SHARE_FOR_ACTIVATIONS + 1
    with_graphs = dataclasses.replace(config, device="cuda", cuda_graphs=True)
    for planned, free, number in (
        (config, needed, 2),
        (with_graphs, needed + graphs, 2),
        (with_graphs, needed + graphs - 2, 3),
    ):
        monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device, free=free: free)
        assert plan_recomputation(planned, CPU) == number
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: graphs)
    with pytest.raises(ValueError, match=r"GiB of CUDA graphs"):
        plan_recomputation(with_graphs, CPU)


@pytest.mark.compiler
def test_on_a_cpu_the_kernels_for_a_cpu_are_counted(config, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: 2**40)
    for name in ("cpu", "auto"):
        assert (
            plan_recomputation(dataclasses.replace(config, kernels=KernelConfig.all(name)), CPU)
            == 0
        )


def test_a_stack_as_short_as_the_others(config, monkeypatch):
    short = dataclasses.replace(config.model.evoformer_stack, num_blocks=2)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, evoformer_stack=short)
    )
    state, kept = (
        memory_plan._state_bytes(config),
        saved_bytes(config, config.kernels, num_recomputed_blocks=1),
    )
    monkeypatch.setattr(
        memory_plan,
        "free_memory_bytes",
        lambda device: state + kept / memory_plan.SHARE_FOR_ACTIVATIONS + 1,
    )
    assert plan_recomputation(config, CPU) == 1
