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
from openfold_opt.model.auxiliary_heads import predicted_lddt
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.weights import load_weights
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.forward import run_passes
from openfold_opt.predict.memory_plan import plan_memory
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.process_memory import return_freed_memory


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
    """Return the measured function: the first pass of a prediction, in place and in blocks."""
    kernels = build_kernel_set(
        KernelConfig.all(settings.variant),
        settings.device,
        sizes.kernel_shapes(),
        precision=settings.precision,
    )
    if settings.device == "cpu":
        return_freed_memory()

    def run(batch: FeatureBatch) -> Mapping[str, Tensor]:
        num_templates = batch.template_mask.shape[1]
        plan = plan_memory(
            config=sizes,
            num_residues=batch.aatype.shape[1],
            max_msa_clusters=batch.msa_feat.shape[2] + num_templates,
            max_extra_msa=batch.extra_msa.shape[2],
            num_templates=num_templates,
            num_passes=1,
            dtype=settings.precision,
            device=torch.device(settings.device),
            dap_size=1,
        ).prediction_plan(kernels=kernels, dap=AxisGroup.single("dap"))
        last = run_passes(model, batch, plan, num_recycling_iterations=0)
        logits = model.auxiliary_heads.plddt(last.structure.states[:, -1], plan)
        return {
            "positions": last.positions[0],
            "plddt": predicted_lddt(logits)[0],
            "pair": last.trunk.z[0],
        }

    return run


if __name__ == "__main__":
    main(build)
