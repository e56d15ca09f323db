"""Measure our forward pass for `perf predict`.

    python -m benchmark.perf.subprocesses.predict_probe SETTINGS

SETTINGS is the JSON of ForwardSettings; its variant is the implementation of all operations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmark.perf.subprocesses.forward_measurement import ForwardSettings, Model, main
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.weights import load_weights
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.protein.features import FEATURES


def model_sizes(*, blocks: int, extra_blocks: int) -> ModelConfig:
    """Return AlphaFold2's configuration with other numbers of blocks."""
    sizes = ModelConfig()
    return dataclasses.replace(
        sizes,
        evoformer_stack=dataclasses.replace(sizes.evoformer_stack, num_blocks=blocks),
        extra_msa_stack=dataclasses.replace(sizes.extra_msa_stack, num_blocks=extra_blocks),
    )


def build(settings: ForwardSettings) -> Model:
    """Build our model with the weights of the settings."""
    sizes = model_sizes(blocks=settings.blocks, extra_blocks=settings.extra_blocks)
    model = AlphaFold(sizes, seed=None)
    load_weights(model, torch.load(settings.weights, weights_only=True), source=settings.weights)
    if settings.precision == "bf16":
        parameters = dict(model.named_parameters())
        for name in model.trunk_linear_names():
            parameters[name].data = parameters[name].data.bfloat16()
    model = model.eval().to(settings.device)

    def prepare(features: dict[str, Tensor]) -> FeatureBatch:
        batched = {
            name: value[None, None] if FEATURES[name].per_pass else value[None]
            for name, value in features.items()
        }
        return FeatureBatch.from_features(batched).to(settings.device)

    return Model(run=forward_pass(model, sizes, settings), prepare=prepare)


def forward_pass(
    model: AlphaFold, sizes: ModelConfig, settings: ForwardSettings
) -> Callable[[FeatureBatch], Mapping[str, Tensor]]:
    """Return the measured function: the forward pass of evaluation."""
    kernels = build_kernel_set(
        KernelConfig.all(settings.variant),
        settings.device,
        sizes.kernel_shapes(),
        precision=settings.precision,
    )
    plan = ExecutionPlan(kernels=kernels, dap=AxisGroup.single("dap"))

    def run(batch: FeatureBatch) -> Mapping[str, Tensor]:
        outputs = model(batch, plan, num_recycling_iterations=0)
        return {
            "positions": outputs.final_atom_positions[0],
            "plddt": outputs.plddt[0],
            "pair": outputs.pair[0],
            "distogram": outputs.distogram_logits[0],
        }

    return run


if __name__ == "__main__":
    main(build)
