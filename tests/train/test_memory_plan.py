"""Numbers of recomputed blocks for several sizes of free memory."""

import dataclasses

import pytest
import torch

from benchmark.presets import build_preset
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.train import memory_plan
from openfold_opt.train.memory_plan import (
    USABLE_SHARE,
    StepMemory,
    plan_recomputation,
    saved_bytes,
)
from openfold_opt.train.operation_shapes import operations_of_step
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer
from openfold_opt.train.synthetic_features import synthetic_batch
from tests.support.devices import DEVICES
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import micro_batch, new_step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config():
    """Return a configuration with six Evoformer blocks and fewer blocks in the other stacks."""
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


def test_every_recomputed_block_saves_memory(kept):
    steps = [a - b for a, b in zip(kept, kept[1:])]
    assert all(step > 0 for step in steps)
    # Beyond the blocks of the other stacks, each saves the same amount, except for a mask.
    assert max(steps[2:]) < 1.01 * min(steps[2:])


@pytest.fixture(scope="module")
def needed(config, kept):
    """Return the bytes of a step: saved tensors, with those of a recomputed block, and workspace.

    The saved tensors of a block are at most those that the first recomputed blocks no longer save.
    """
    workspace = StepMemory(config, config.kernels, has_graphs=False).largest_workspace.bytes
    assert workspace > 0
    recomputed = kept[6] + kept[0] - kept[1]
    return [kept[0] + workspace, *(max(x, recomputed) + workspace for x in kept[1:])]


def test_the_largest_workspace_is_that_of_an_operation_of_the_step(config):
    found = StepMemory(config, config.kernels, has_graphs=False).largest_workspace
    workspaces = {
        (place.operation, place.where): OPERATIONS[place.operation]
        .workspace(place.shapes, torch.float32, implementation="reference")
        .training
        for place in operations_of_step(config)
        if OPERATIONS[place.operation].has_gradient
    }
    assert workspaces[found.operation, found.where] == found.bytes == max(workspaces.values())
    assert found.implementation == "reference"


def test_separate_launches_of_attention_need_more_memory(config):
    """They save the normalized rows for the backward pass."""
    config = dataclasses.replace(config, precision="bf16")
    fused, separate = (
        StepMemory(
            config,
            dataclasses.replace(KernelConfig.all("triton"), fused_attention=is_fused),
            has_graphs=False,
        )
        for is_fused in (True, False)
    )
    assert fused.saved(0) < separate.saved(0)
    found = separate.largest_workspace
    place = next(
        place
        for place in operations_of_step(config)
        if (place.operation, place.where) == (found.operation, found.where)
    )
    workspace = OPERATIONS["self_attention"].workspace(
        place.shapes, torch.bfloat16, implementation="triton"
    )
    assert fused.largest_workspace.bytes < found.bytes == workspace.training


@pytest.mark.parametrize("between", [0.0, 0.5])
@pytest.mark.parametrize("number", range(7))
def test_the_plan_recomputes_the_fewest_blocks_that_fit(
    config, needed, number, between, monkeypatch
):
    state = memory_plan.state_bytes(config)
    available = needed[number] + between * (needed[max(number - 1, 0)] - needed[number])
    free = state + available / USABLE_SHARE + 1
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: free)
    expected = next(i for i, bytes_needed in enumerate(needed) if bytes_needed <= available)
    assert plan_recomputation(config, CPU) == expected


def test_a_step_that_cannot_fit_is_an_error(config, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: 1000)
    expected = r"even if all blocks are recomputed, of which the reference kernel self_attention \("
    with pytest.raises(ValueError, match=expected):
        plan_recomputation(config, CPU)


def test_recomputing_all_or_no_blocks_needs_no_sizes(config):
    assert plan_recomputation(dataclasses.replace(config, recompute=True), CPU) == ALL_BLOCKS
    assert plan_recomputation(dataclasses.replace(config, recompute=False), CPU) == 0
    with pytest.raises(ValueError, match='expected True, False or "auto"'):
        dataclasses.replace(config, recompute="some")


def bytes_kept_by(forward, model, device):
    """Return the bytes that a real forward pass saves for the backward pass, without parameters.

    On a GPU, they are counted by the allocator; on a CPU, from the storages that autograd saves.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(device)
        result = forward()
        torch.cuda.synchronize()
        kept = torch.cuda.memory_allocated(device) - before
        del result
        return kept
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def keep(x):
        saved.setdefault(x.untyped_storage().data_ptr(), x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        forward()
    return sum(
        x.untyped_storage().nbytes() for pointer, x in saved.items() if pointer not in parameters
    )


@pytest.mark.parametrize("device", DEVICES)
def test_the_plan_counts_the_bytes_of_a_real_forward_pass(config, device):
    device = torch.device(device)
    if device.type == "cuda":
        # Large enough that the rounding of the allocator and cached tables do not matter.
        config = dataclasses.replace(build_preset("middle"), recompute="auto")
    model = AlphaFold(config.model).to(device)
    # As in training: joined weights are views, which a forward pass does not copy.
    ParameterBuffer(model)
    features = synthetic_batch(config.data, batch_size=1, num_passes=1)
    batch = FeatureBatch.from_features(features).to(device)
    kernel_config = KernelConfig.all("triton" if device.type == "cuda" else "reference")
    kernels = build_kernel_set(kernel_config, device, config.model.kernel_shapes())
    plan = dataclasses.replace(ExecutionPlan.reference(), kernels=kernels)

    def forward():
        outputs = model(batch, plan, num_recycling_iterations=0)
        return AlphaFoldLoss(config.loss)(outputs, batch.at_pass(0))

    if device.type == "cuda":
        forward()  # Creates compiled kernels, workspaces and tables, which stay in memory.
    expected = saved_bytes(config, kernel_config, num_recomputed_blocks=0)
    tolerance = 0.05 if device.type == "cuda" else 0.02
    assert bytes_kept_by(forward, model, device) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_stays_below_the_planned_memory(config, device):
    """The peak is at most the state plus the activations divided by their share."""
    device = torch.device(device)
    preset = build_preset("middle") if device.type == "cuda" else config
    kernels = KernelConfig.all("triton" if device.type == "cuda" else "reference")
    preset = dataclasses.replace(preset, device=device.type, recompute=False, kernels=kernels)
    step = new_step(preset, device.type)
    batch = micro_batch(preset, 1, device=device.type)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    assert (
        step.run([batch], step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=1)
        .read()
        .is_applied
    )
    planned = memory_plan.state_bytes(preset)
    planned += StepMemory(preset, kernels, has_graphs=False).needed(0) / USABLE_SHARE
    if device.type == "cuda":
        assert torch.cuda.max_memory_allocated(device) <= planned


@pytest.mark.parametrize(
    ("graphs_gib", "numbers"), [(0.0, {80: 0, 40: 13}), (3.8, {80: 0, 40: 17})]
)
def test_the_fast_preset_fits_into_80_gib_without_recomputation_and_into_40_with_it(
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
    # In GiB, as counted by saved_bytes.
    sizes.update(
        {
            number: int(gib * 2**30)
            for number, gib in ((0, 51.42), (1, 48.9), (2, 46.3), (3, 43.7), (4, 41.14), (48, 2.46))
        }
    )
    for gib, number in numbers.items():
        monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device, gib=gib: gib * 2**30)
        assert plan_recomputation(config, torch.device("cuda")) == number


def test_graphs_reduce_the_memory_for_saved_tensors(config, needed, monkeypatch):
    """The memory suffices for two recomputed blocks, with graphs only if theirs is free, too."""
    graphs = 10**9
    monkeypatch.setattr(memory_plan, "graph_memory_bytes", lambda config, kernels: graphs)
    total = memory_plan.state_bytes(config) + needed[2] / USABLE_SHARE + 1
    with_graphs = dataclasses.replace(config, device="cuda", cuda_graphs=True)
    for planned, free, number in (
        (config, total, 2),
        (with_graphs, total + graphs, 2),
        (with_graphs, total + graphs - 2, 3),
    ):
        monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device, free=free: free)
        assert plan_recomputation(planned, CPU) == number
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: graphs)
    with pytest.raises(ValueError, match=r"GiB of CUDA graphs"):
        plan_recomputation(with_graphs, CPU)


@pytest.mark.compiler
def test_the_cpu_kernels_are_counted_on_a_cpu(config, monkeypatch):
    monkeypatch.setattr(memory_plan, "free_memory_bytes", lambda device: 2**40)
    for name in ("cpu", "auto"):
        assert (
            plan_recomputation(dataclasses.replace(config, kernels=KernelConfig.all(name)), CPU)
            == 0
        )


def test_the_plan_handles_an_evoformer_as_short_as_the_other_stacks(config, monkeypatch):
    short = dataclasses.replace(config.model.evoformer_stack, num_blocks=2)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, evoformer_stack=short)
    )
    state = memory_plan.state_bytes(config)
    needed = StepMemory(config, config.kernels, has_graphs=False).needed(1)
    monkeypatch.setattr(
        memory_plan,
        "free_memory_bytes",
        lambda device: state + needed / USABLE_SHARE + 1,
    )
    assert plan_recomputation(config, CPU) == 1
