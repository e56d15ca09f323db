"""The memory plan against counted tensors, its limits, and what it says about GPUs."""

from dataclasses import replace

import pytest
import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.kernels.workspace import tensors_in
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.forward import run_passes
from openfold_opt.predict.forward_trace import ForwardTrace, TracedPlan
from openfold_opt.predict.memory_plan import describe_plan, plan_memory
from openfold_opt.predict.meta_results import MetaResults
from openfold_opt.predict.schedule.plan import STEPS, PredictionPlan
from openfold_opt.predict.schedule.structure import send_distogram, send_pairs
from openfold_opt.predict.traced_prediction import (
    ChainSizes,
    Division,
    meta_kernels,
    trace_prediction,
    traced_model,
)
from openfold_opt.train.synthetic_features import synthetic_sample

MIB = 2**20
CONSTANT = 20 * MIB
"""Memory of blocks and of tensors per residue, in addition to pairs and MSA."""


def one_block(config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        template_pair_stack=replace(config.template_pair_stack, num_blocks=1),
        extra_msa_stack=replace(config.extra_msa_stack, num_blocks=1),
        evoformer_stack=replace(config.evoformer_stack, num_blocks=1),
        structure_module=replace(config.structure_module, num_blocks=1),
    )


FULL = one_block(ModelConfig())


def planned(num_residues, **changes):
    arguments = {
        "config": FULL,
        "num_residues": num_residues,
        "max_msa_clusters": 32,
        "max_extra_msa": 64,
        "num_templates": 0,
        "num_passes": 2,
        "dtype": "fp32",
        "device": "cpu",
    }
    return plan_memory(**(arguments | changes))


def counted(plan) -> ForwardTrace:
    """Predict random features with the division of a plan and count the real tensors."""
    sizes = plan.sizes
    lengths = {
        "N_res": sizes.num_residues,
        "N_clust": sizes.msa_rows - sizes.num_templates,
        "N_extra": sizes.extra_rows,
        "N_templ": sizes.num_templates,
        "num_passes": sizes.num_passes,
    }
    batch = FeatureBatch.from_features(synthetic_sample(lengths, seed=0))
    kernels = build_kernel_set(KernelConfig.all("cpu"), "cpu")
    model = AlphaFold(FULL).eval()
    division = plan.prediction_plan(kernels=kernels, dap=AxisGroup.single("dap"))
    with ForwardTrace("cpu") as trace:
        run_passes(model, batch, division, num_recycling_iterations=sizes.num_passes - 1)
    return trace


def msa_bytes(sizes: ChainSizes) -> int:
    """Return the bytes of the MSA or of the extra MSA, float32; they never exist together.

    Each has 32 more channels for one side of its outer products.
    """
    return 4 * sizes.num_residues * max((256 + 32) * sizes.msa_rows, (64 + 32) * sizes.extra_rows)


@pytest.mark.parametrize(("num_residues", "num_templates"), [(80, 0), (33, 2)])
def test_plan_and_counted_peak_of_real_tensors_agree(num_residues, num_templates):
    plan = planned(num_residues, num_templates=num_templates)
    trace = counted(plan)
    assert plan.forward_bytes == pytest.approx(trace.largest, rel=0.05)
    assert trace.largest <= 2.7 * plan.pair_bytes + msa_bytes(plan.sizes) + CONSTANT


@pytest.mark.parametrize("num_residues", [128, 256, 512])
def test_peak_is_two_pair_tensors_and_the_msa(num_residues):
    plan = planned(num_residues, max_msa_clusters=128, max_extra_msa=1024)
    assert plan.forward_bytes <= 2.3 * plan.pair_bytes + msa_bytes(plan.sizes) + CONSTANT


def test_peak_of_one_pass_with_templates():
    plan = planned(256, max_msa_clusters=128, num_templates=4, num_passes=1)
    assert plan.forward_bytes <= 2.3 * plan.pair_bytes + msa_bytes(plan.sizes) + CONSTANT


def test_outline_has_the_peak_of_all_blocks():
    model = traced_model(FULL, "fp32")
    kernels = meta_kernels(KernelConfig.all("triton"), model)
    sizes = ChainSizes(num_residues=24, msa_rows=12, extra_rows=15, num_templates=3, num_passes=3)
    for dap_size in (1, 3):
        division = Division(block_rows=dict.fromkeys(STEPS, 3), dap_size=dap_size)
        outline, full = (
            trace_prediction(model, sizes, kernels, division, is_outline=is_outline)
            for is_outline in (True, False)
        )
        assert outline.largest == full.largest
        for key, step in full.steps.items():
            assert outline.steps[key].peak_bytes == pytest.approx(step.peak_bytes, rel=0.05), key


@pytest.mark.parametrize("dap_size", [1, 4])
def test_embeddings_do_not_change_the_peak(monkeypatch, dap_size):
    sent = []

    def send_both(model, z, plan, sink):
        send_pairs(z, plan, lambda start, rows: sent.append(rows.shape))
        send_distogram(model, z, plan, sink)

    monkeypatch.setattr("openfold_opt.predict.traced_prediction.send_distogram", send_both)
    model = traced_model(FULL, "bf16")
    sizes = ChainSizes(num_residues=256, msa_rows=32, extra_rows=32, num_templates=0, num_passes=1)
    division = Division(block_rows=dict.fromkeys(STEPS, 8), dap_size=dap_size)
    kernels = meta_kernels(KernelConfig.all("triton"), model)
    trace = trace_prediction(model, sizes, kernels, division)
    heads = [step.peak_bytes for key, step in trace.steps.items() if key.phase == "heads"]
    assert sent[0] == (8, 256, 128)
    assert max(heads) < trace.largest


def test_outline_counts_the_work_of_all_blocks():
    model = traced_model(FULL, "fp32")
    kernels = meta_kernels(KernelConfig.all("reference"), model)
    sizes = ChainSizes(num_residues=40, msa_rows=16, extra_rows=20, num_templates=1, num_passes=2)
    division = Division(block_rows=dict.fromkeys(STEPS, 4))
    outline, full = (
        sum(
            step.work.flops
            for step in trace_prediction(
                model, sizes, kernels, division, is_outline=is_outline, counts_work=True
            ).steps.values()
        )
        for is_outline in (True, False)
    )
    assert outline == pytest.approx(full, rel=0.01)


def test_four_ranks_hold_less_than_a_quarter_of_the_pairs_each():
    # Fewer rows than residues / 8.
    plan = planned(384, max_msa_clusters=40, max_extra_msa=40, dap_size=4)
    assert plan.forward_bytes <= 0.75 * plan.pair_bytes + msa_bytes(plan.sizes) / 4
    model = traced_model(FULL, "fp32")
    trace = trace_prediction(
        model,
        plan.sizes,
        meta_kernels(KernelConfig.all("cpu"), model),
        plan.division,
        features_on="meta",
        is_outline=False,
    )
    assert trace.largest == pytest.approx(plan.forward_bytes, rel=0.01)
    # The shard of the pairs has exactly this size.
    assert trace.largest_storage == plan.pair_bytes // 4


@pytest.mark.parametrize(
    ("num_residues", "device", "dap_size"),
    [(10_000, "a100-80", 1), (15_000, "h200", 1), (30_000, "h200", 8)],
)
def test_long_chains_fit(num_residues, device, dap_size):
    base = {"config": ModelConfig(), "dtype": "bf16", "device": device, "dap_size": dap_size}
    base |= {"num_passes": 4, "max_msa_clusters": 512, "max_extra_msa": 1024}
    plan = planned(num_residues, **base)
    assert plan.fits
    if num_residues == 10_000:
        assert plan.peak_bytes <= 61e9
    assert planned(num_residues, **base | {"max_extra_msa": 5120}).fits
    assert planned(num_residues, **base | {"num_templates": 4}).fits


def test_a_chain_that_does_not_fit_names_the_number_of_gpus():
    base = {"config": ModelConfig(), "dtype": "bf16", "num_passes": 4, "max_msa_clusters": 512}
    plan = planned(10_000, device="a100-40", **base)
    assert not plan.fits
    assert f"it fits on {plan.fewest_gpus} GPUs" in plan.refusal()
    assert planned(10_000, device="a100-40", dap_size=plan.fewest_gpus, **base).fits
    assert not planned(10_000, device="a100-40", dap_size=plan.fewest_gpus - 1, **base).fits


def test_pairs_go_to_the_host_if_templates_do_not_fit_otherwise():
    base = {"config": ModelConfig(), "dtype": "bf16", "num_templates": 4, "max_msa_clusters": 512}
    assert not planned(10_000, device="h200", **base).division.offload_pairs
    plan = planned(15_000, device="h200", **base)
    assert plan.division.offload_pairs
    assert plan.host_bytes > plan.pair_bytes


def test_a_cpu_also_needs_memory_for_its_heap_and_has_no_expected_time():
    plan = planned(64)
    parts = plan.forward_bytes + plan.heap_bytes + plan.weight_bytes + plan.feature_bytes
    assert plan.peak_bytes == parts and plan.heap_bytes > 0
    assert plan.seconds is None
    assert "expected time: unknown, because the rates of a CPU" in "\n".join(plan.describe())
    assert planned(64, device="h200", dtype="bf16").heap_bytes == 0


def test_results_on_device_meta_are_repeated_with_the_same_layout():
    results = MetaResults()
    x = torch.empty(4, 6, 8, device="meta")
    numbers = torch.empty(3, dtype=torch.int64, device="meta")
    aten = torch.ops.aten
    calls = [
        (aten.mul.Tensor, (x, x[0])),
        (aten.mul.Tensor, (numbers, 2)),
        (aten.mul.Tensor, (numbers, 2.0)),
        (aten.native_layer_norm.default, (x.mT, [6], None, None, 1e-5)),
        (aten.max.dim, (x, 1)),
        (aten.sum.dim_IntList, (x, [0, 2], True)),
    ]
    for func, args in calls:
        first, again = (results.run(func, args, {}) for _ in range(2))
        expected = func(*args)
        for found in (tensors_in(first), tensors_in(again)):
            assert len(found) == len(tensors_in(expected))
            for tensor, other in zip(found, tensors_in(expected)):
                assert (tensor.shape, tensor.stride()) == (other.shape, other.stride())
                assert tensor.dtype == other.dtype and tensor.is_meta
        storages = {t.untyped_storage()._cdata for t in tensors_in((first, again))}
        assert len(storages) == 2 * len(tensors_in(first))
    # Views and changed tensors keep their storage.
    view = [results.run(aten._unsafe_view.default, (x, [24, 8]), {}) for _ in range(2)]
    assert all(y.untyped_storage()._cdata == x.untyped_storage()._cdata for y in view)
    assert all(results.run(aten.add_.Tensor, (x, x), {}) is x for _ in range(2))
    real = torch.ones(2)
    assert all(
        torch.equal(results.run(aten.add.Tensor, (real, k), {}), real + k) for k in (1, 2, 2)
    )


def test_description_and_unknown_devices():
    lines, fits = describe_plan([1000], config=FULL, device="h200", dtype="bf16", dap_size=2)
    assert fits
    text = "\n".join(lines)
    assert (
        "an estimate, not a measurement" in text and "peak by phase" in text and "2 x h200" in text
    )
    with pytest.raises(ValueError, match="unknown device 'v100'.*h200"):
        describe_plan([1000], config=FULL, device="v100", dtype="bf16")


def test_plan_for_another_number_of_ranks_is_refused():
    plan = planned(32)
    kernels = build_kernel_set(KernelConfig(), "cpu")
    with pytest.raises(ValueError, match="for 1 ranks, found 2"):
        plan.prediction_plan(kernels=kernels, dap=AxisGroup.fake("dap", size=2))


def test_the_trace_counts_a_tensor_that_is_kept():
    """A plan whose blocks are larger needs more; a tensor that stays alive is in the peak."""
    with ForwardTrace("meta") as trace:
        plan = TracedPlan(
            kernels=PredictionPlan.reference().kernels, dap=AxisGroup.single("dap"), trace=trace
        )
        kept = torch.empty(100, device="meta")
        for _ in plan.blocks("embed_pairs", 2):
            torch.empty(50, device="meta")
        assert trace.largest == 4 * 150
        del kept
        torch.empty(140, device="meta")
    assert trace.largest == 4 * 150
    (step,) = (step for key, step in trace.steps.items() if key.step == "embed_pairs")
    assert (step.peak_bytes, step.workspace_bytes) == (600, 200)
