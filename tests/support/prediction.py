"""Small models, chains and plans for tests of the prediction forward."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from openfold_opt.geometry.atoms import make_atom14_masks
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.schedule.plan import STEPS, PredictionPlan
from openfold_opt.train.synthetic_features import synthetic_sample
from tests.support.tiny_model import tiny_model


def random_model(config: ModelConfig | None = None) -> AlphaFold:
    """Return a model, by default of tiny_model, in which no parameter is zero."""
    model = AlphaFold(tiny_model() if config is None else config, seed=None).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim < 2 else 1.0 / parameter.shape[1] ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def random_chain(num_res: int, *, num_templates: int = 2, num_passes: int = 3) -> FeatureBatch:
    """Return random features of one chain; of two templates the second one does not exist."""
    sizes = {
        "num_passes": num_passes,
        "N_res": num_res,
        "N_clust": 4,
        "N_extra": 5,
        "N_templ": num_templates,
    }
    batch = FeatureBatch.from_features(synthetic_sample(sizes, seed=0))
    template_mask = batch.template_mask.clone()
    template_mask[:, 1:2] = 0.0
    return dataclasses.replace(
        batch,
        residue_index=torch.arange(num_res)[None],
        seq_length=torch.tensor([num_res]),
        template_mask=template_mask,
        **make_atom14_masks(batch.aatype),
    )


def prediction_plan(
    *,
    kernels: str = "reference",
    rows: int | None = None,
    dap: AxisGroup | None = None,
    channel_groups: int = 2,
    device: torch.device | str = "cpu",
) -> PredictionPlan:
    """Return a plan with blocks of `rows` rows in every step; None: undivided."""
    return PredictionPlan(
        kernels=build_kernel_set(KernelConfig.all(kernels), device),
        dap=AxisGroup.single("dap") if dap is None else dap,
        block_rows={} if rows is None else dict.fromkeys(STEPS, rows),
        channel_groups=channel_groups,
    )


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return ||found - expected|| / ||expected||."""
    return float((found - expected).double().norm() / expected.double().norm())


def evaluation_outputs(model: AlphaFold, batch: FeatureBatch, num_recycling_iterations: int):
    """Return the outputs of AlphaFold.forward with the reference kernels."""
    with torch.no_grad():
        return model(
            batch, ExecutionPlan.reference(), num_recycling_iterations=num_recycling_iterations
        )
