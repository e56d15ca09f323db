"""Measure our prediction for `perf predict`.

    python -m benchmark.perf.subprocesses.predict_probe SETTINGS

SETTINGS is the JSON of ForwardSettings; its variant is the implementation of all operations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmark.perf.subprocesses.forward_measurement import (
    COMPARED_ROWS,
    ForwardSettings,
    Model,
    main,
)
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.weights import load_weights
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.forward import RowSinks, predict_chain
from openfold_opt.predict.memory_plan import plan_memory
from openfold_opt.predict.plan_record import MemoryPlan
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.process_memory import return_freed_memory


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedChain:
    """The features of a chain and how its prediction is divided."""

    batch: FeatureBatch
    memory: MemoryPlan


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
    if settings.device == "cpu":
        return_freed_memory()

    def prepare(features: dict[str, Tensor]) -> PlannedChain:
        batched = {
            name: value[None, None] if FEATURES[name].per_pass else value[None]
            for name, value in features.items()
        }
        batch = FeatureBatch.from_features(batched).to(settings.device)
        return PlannedChain(batch=batch, memory=plan_of(batch, sizes, settings))

    return Model(
        run=prediction(model, sizes, settings),
        prepare=prepare,
        planned_bytes=lambda chain: chain.memory.forward_bytes,
    )


def plan_of(batch: FeatureBatch, sizes: ModelConfig, settings: ForwardSettings) -> MemoryPlan:
    """Return the memory plan of a chain, the default of a prediction."""
    num_templates = batch.template_mask.shape[-1]
    return plan_memory(
        config=sizes,
        num_residues=batch.aatype.shape[-1],
        max_msa_clusters=batch.msa_feat.shape[-3] + num_templates,
        max_extra_msa=batch.extra_msa.shape[-2],
        num_templates=num_templates,
        num_passes=1,
        dtype=settings.precision,
        device=settings.device,
    )


def prediction(
    model: AlphaFold, sizes: ModelConfig, settings: ForwardSettings
) -> Callable[[PlannedChain], Mapping[str, Tensor]]:
    """Return the measured function, the prediction of a chain.

    Only the run that counts tensors also computes the distogram, which is compared. A prediction
    does so on request.
    """
    kernels = build_kernel_set(
        KernelConfig.all(settings.variant),
        settings.device,
        sizes.kernel_shapes(),
        precision=settings.precision,
    )

    def run(chain: PlannedChain) -> Mapping[str, Tensor]:
        rows: dict[int, np.ndarray] = {}

        def keep_first_rows(start: int, values: np.ndarray) -> None:
            if start < COMPARED_ROWS:
                rows[start] = values[: COMPARED_ROWS - start]

        prediction = predict_chain(
            model,
            chain.batch,
            chain.memory.prediction_plan(kernels=kernels, dap=AxisGroup.single("dap")),
            num_recycling_iterations=0,
            sinks=RowSinks(distogram=keep_first_rows if settings.counts else None),
        )
        results = {"positions": prediction.positions, "plddt": prediction.plddt}
        if rows:
            results["distogram"] = np.concatenate([rows[start] for start in sorted(rows)])
        return {name: torch.from_numpy(value) for name, value in results.items()}

    return run


if __name__ == "__main__":
    main(build)
