"""Synthetic samples in memory with all model features, and a tiny configuration for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from openfold_opt.loader.batch import LoadedBatch, ModelFeatures
from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.sampler import StreamOrigin
from openfold_opt.model.auxiliary_heads import AuxiliaryHeadsConfig
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig
from openfold_opt.model.structure_module import StructureModuleConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.model.template_pointwise_attention import TemplatePointwiseAttentionConfig
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import WHOLE_RUN, sample_stream, split_evaluation
from openfold_opt.train.evaluation.evaluator import EvaluationConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.synthetic_features import synthetic_sample

SIZES = {"N_res": 8, "N_clust": 3, "N_extra": 4, "N_templ": 1}
NUM_PASSES = 2
LEARNING_RATE = 1e-3
STACK = {
    "num_blocks": 1,
    "c_hidden_msa_attention": 4,
    "num_heads_msa": 2,
    "c_hidden_outer_product": 4,
    "c_hidden_triangle_multiplication": 4,
    "c_hidden_triangle_attention": 4,
    "num_heads_triangle": 2,
    "transition_factor": 2,
}


def tiny_config(**changes) -> RunConfig:
    """Return a configuration that trains in seconds on a CPU: one block per stack, few channels."""
    model = ModelConfig(
        c_m=8,
        c_z=8,
        c_s=8,
        c_e=4,
        c_t=4,
        template_pair_stack=TemplatePairStackConfig(
            num_blocks=1,
            c_hidden_triangle_attention=4,
            num_heads_triangle=2,
            c_hidden_triangle_multiplication=4,
        ),
        template_pointwise_attention=TemplatePointwiseAttentionConfig(c_hidden=4, num_heads=2),
        extra_msa_stack=ExtraMSAStackConfig(**STACK),
        evoformer_stack=EvoformerStackConfig(**STACK),
        structure_module=StructureModuleConfig(
            num_blocks=2,
            c_hidden_point_attention=4,
            num_heads=2,
            num_qk_points=2,
            num_v_points=2,
            c_hidden_angles=8,
        ),
        auxiliary_heads=AuxiliaryHeadsConfig(c_hidden_lddt=8),
    )
    values = {
        "model": model,
        "data": DataConfig(
            crop_size=SIZES["N_res"],
            max_msa_clusters=3,
            max_extra_msa=4,
            max_templates=1,
            max_recycling_iterations=NUM_PASSES - 1,
        ),
        "schedule": ScheduleConfig(base_learning_rate=LEARNING_RATE),
        "evaluation": EvaluationConfig(every_steps=4, target_lddt_ca=1.0),
        "checkpoint": CheckpointConfig(every_steps=2, keep_last=2, keep_best=1),
        "max_steps": 8,
        "precision": "fp32",
        "recompute": False,
        "device": "cpu",
    }
    return RunConfig(**(values | changes))


def random_features(seed: int, *, num_residues: int = SIZES["N_res"]) -> dict[str, Tensor]:
    """Return all features of a batch of one."""
    return synthetic_sample(SIZES | {"N_res": num_residues, "num_passes": NUM_PASSES}, seed=seed)


class MemoryData:
    """Implements OpenData: sample g of the stream is random_features(g)."""

    train_samples = 10
    eval_samples = 3
    held_out = ()

    def __init__(
        self, config: RunConfig, context: ParallelContext, *, broken_at: int | None
    ) -> None:
        self._config = config
        self._axis = context.data
        self._context = context
        self._broken_at = broken_at

    def mark_consumed(self, batch: LoadedBatch[ModelFeatures]) -> None:
        """Do nothing: batches are used in order."""

    def training_state(self) -> None:
        """Return None: samples are used in order."""

    def training_batches(
        self,
        *,
        first_step: int,
        start: None,
        device: torch.device,
        report: Callable[[str], None],
        origin: StreamOrigin = WHOLE_RUN,
    ) -> Iterator[LoadedBatch[ModelFeatures]]:
        stream = sample_stream(self._config, self._axis, origin)
        position = (first_step - 1 - origin.steps_before) * stream.accumulation
        while stream.num_positions is None or position < stream.num_positions:
            step, micro = stream.step_of(position)
            numbers = stream.sample_numbers(position)
            yield LoadedBatch(
                features=self._stack(numbers),
                chain_ids=tuple(f"chain{number}" for number in numbers),
                sample_seeds=tuple(numbers),
                slots=torch.tensor(stream.slots(micro)),
                step=step,
                micro=micro,
                position=position,
                queue_depth=0,
                reorder_distance=0,
            )
            position += 1

    def _stack(self, numbers: list[int]) -> dict[str, Tensor]:
        length = self._config.data.crop_size
        samples = [random_features(number, num_residues=length) for number in numbers]
        for number, sample in zip(numbers, samples, strict=True):
            if number == self._broken_at:
                sample["chi_angles_sin_cos"][:] = float("nan")
        return {name: torch.cat([sample[name] for sample in samples]) for name in FEATURES}

    def evaluation_chains(
        self, *, device: torch.device, together: bool
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        lengths = {f"eval{number}": 6 + number for number in range(self.eval_samples)}
        shares = split_evaluation(
            lengths, self._context, self._config.parallel.evaluation_dap_min_length
        )
        for chain_id in shares[together]:
            number = int(chain_id.removeprefix("eval"))
            yield chain_id, random_features(1000 + number, num_residues=lengths[chain_id])

    def close(self) -> None:
        """Do nothing: there are no resources."""


class MemorySource:
    """Implements DataSource."""

    def __init__(self, *, broken_at: int | None = None) -> None:
        self._broken_at = broken_at

    def checksum(self) -> str:
        return "memory"

    def open(self, config: RunConfig, context: ParallelContext, *, seed: int) -> MemoryData:
        return MemoryData(config, context, broken_at=self._broken_at)
