"""Prediction of a chain of given sizes on device meta, for the memory plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from openfold_opt.kernels.interface import KernelConfig, KernelSet
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.forward import run_passes
from openfold_opt.predict.forward_trace import ForwardTrace, TracedPlan
from openfold_opt.predict.schedule.plan import Step
from openfold_opt.predict.schedule.structure import predict_aligned_errors, send_distogram
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.precision import Precision, meta_model

NUM_TRACED_TEMPLATES = 2
"""From the second template on, all take the same memory and work."""


@dataclass(frozen=True, kw_only=True)
class ChainSizes:
    """Sizes of the features of a chain."""

    num_residues: int
    msa_rows: int
    """Rows of the MSA representation, those of the templates included."""
    extra_rows: int
    """Rows of the extra MSA."""
    num_templates: int
    num_passes: int
    """Recycling iterations and the last pass."""

    def __post_init__(self) -> None:
        minima = {"num_residues": 1, "msa_rows": 1 + self.num_templates, "extra_rows": 1}
        for name, minimum in {**minima, "num_templates": 0, "num_passes": 1}.items():
            if getattr(self, name) < minimum:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected at least {minimum} for a "
                    f"prediction with {self.num_templates} templates"
                )

    def padded(self, dap_size: int) -> ChainSizes:
        """Return the sizes with residues padded to a multiple of the number of ranks."""
        return replace(self, num_residues=-(-self.num_residues // dap_size) * dap_size)

    def feature_bytes(self) -> int:
        """Return the bytes of all features."""
        return sum(
            x.numel() * x.element_size() for x in vars(empty_features(self, "meta")).values()
        )


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a prediction is divided, as fields of PredictionPlan."""

    block_rows: Mapping[Step, int]
    channel_groups: int = 2
    offload_pairs: bool = False
    dap_size: int = 1


def empty_features(sizes: ChainSizes, device: str) -> FeatureBatch:
    """Return features that take no memory, on device "meta" or "cpu".

    On the CPU, all elements of a tensor are one. Their copies on device meta do take memory there.
    """
    lengths: dict[str, int] = {
        "batch": 1,
        "num_passes": sizes.num_passes,
        "N_res": sizes.num_residues,
        "N_clust": sizes.msa_rows - sizes.num_templates,
        "N_extra": sizes.extra_rows,
        "N_templ": sizes.num_templates,
    }

    def feature(name: str) -> Tensor:
        spec = FEATURES[name]
        dims = spec.leading_dims(batched=True) + spec.shape
        shape = [lengths[dim] if isinstance(dim, str) else dim for dim in dims]
        dtype = getattr(torch, spec.dtype.name)
        if device == "meta":
            return torch.empty(shape, dtype=dtype, device=device)
        return torch.ones((), dtype=dtype).expand(shape)

    return FeatureBatch.from_features({name: feature(name) for name in FEATURES})


def traced_model(config: ModelConfig, precision: Precision) -> AlphaFold:
    """Return the model on device meta with one block of each stack and of the structure module."""
    return meta_model(
        replace(
            config,
            template_pair_stack=replace(config.template_pair_stack, num_blocks=1),
            extra_msa_stack=replace(config.extra_msa_stack, num_blocks=1),
            evoformer_stack=replace(config.evoformer_stack, num_blocks=1),
            structure_module=replace(config.structure_module, num_blocks=1),
        ),
        precision,
    ).eval()


def meta_kernels(config: KernelConfig, model: AlphaFold) -> KernelSet:
    """Return kernels for device meta; config has no "auto"."""
    return build_kernel_set(config, "meta", model.config.kernel_shapes())


@torch.no_grad()
def trace_prediction(
    model: AlphaFold,
    sizes: ChainSizes,
    kernels: KernelSet,
    division: Division,
    *,
    features_on: str = "cpu",
    is_outline: bool = True,
    counts_work: bool = False,
) -> ForwardTrace:
    """Run the passes and the heads on device meta, and return the counts of rank 0.

    Args:
        model: from traced_model.
        sizes: of the chain. At most two passes and two templates run.
        kernels: from meta_kernels.
        division: blocks and number of ranks.
        features_on: "cpu" if blocks of the features are copied to the device, "meta" if they are
            on it.
        is_outline: whether to leave out blocks that allocate the same as others.
        counts_work: whether to count the work, too.
    """
    sizes = _traced_sizes(sizes.padded(division.dap_size))
    batch, num_blocks = empty_features(sizes, features_on), None
    if is_outline:
        num_blocks = 2 if division.dap_size == 1 else 3
    with ForwardTrace("meta", counts_work=counts_work) as trace:
        axis = AxisGroup.single("dap")
        if division.dap_size > 1:
            axis = replace(AxisGroup.fake("dap", size=division.dap_size), on_launch=trace.send)
        plan = TracedPlan(
            kernels=kernels,
            dap=axis,
            block_rows=division.block_rows,
            channel_groups=division.channel_groups,
            offload_pairs=division.offload_pairs,
            trace=trace,
        )
        # The first of two passes needs less memory than the second; its outputs matter.
        trace.max_blocks = 1 if is_outline and sizes.num_passes > 1 else num_blocks

        def start_second(index: int, change: float | None) -> None:
            if index + 1 < sizes.num_passes:
                trace.max_blocks = num_blocks
                trace.clear_work()

        last = run_passes(
            model,
            batch,
            plan,
            num_recycling_iterations=sizes.num_passes - 1,
            on_pass=start_second,
        )
        model.auxiliary_heads.plddt(last.states, plan)
        send_distogram(model, last.trunk.z, plan, _ignore)
        if model.config.auxiliary_heads.has_tm_score:
            predict_aligned_errors(model, last.trunk.z, last.residues.seq_mask, plan, _ignore)
    return trace


def _traced_sizes(sizes: ChainSizes) -> ChainSizes:
    """Return the sizes of the chain with the passes and templates that are traced."""
    return replace(
        sizes,
        num_passes=min(sizes.num_passes, 2),
        num_templates=min(sizes.num_templates, NUM_TRACED_TEMPLATES),
        # The number of rows that are not of templates remains.
        msa_rows=sizes.msa_rows - max(sizes.num_templates - NUM_TRACED_TEMPLATES, 0),
    )


def _ignore(start: int, rows: Tensor) -> None:
    """Receive rows of a pair matrix."""
