"""A training step without a device: PyTorch's meta tensors have shapes and no values, so a step of any size runs in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.config import RunConfig
from openfold_opt.train.precision import meta_model
from openfold_opt.train.synthetic_features import meta_batch

META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Floating-point operations of matrix products."""

    forward: int
    """Of a forward pass."""
    both: int
    """Of forward pass, loss and backward pass."""

    def of_step(self, num_recycling_iterations: int) -> int:
        """Of a step with so many passes without gradient."""
        return num_recycling_iterations * self.forward + self.both


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaStep:
    """What a step needs, all of it on meta."""

    model: AlphaFold
    plan: ExecutionPlan
    batch: FeatureBatch
    dropout: DropoutState | None
    loss: AlphaFoldLoss
    num_passes: int = 0
    """Passes without gradient."""

    @classmethod
    def build(
        cls,
        config: RunConfig,
        *,
        kernels: str,
        precision: str,
        num_passes: int = 0,
        dap: AxisGroup = AxisGroup.single("dap"),
        num_recomputed_blocks: int = 0,
    ) -> MetaStep:
        """The step of a preset with one implementation of all operations, after num_passes passes without gradient."""
        kernel_set = build_kernel_set(KernelConfig.all(kernels), META, config.model.kernel_shapes())
        scalar = torch.zeros((), dtype=torch.int64, device=META)
        slots = torch.zeros(config.local_batch_size, dtype=torch.int64, device=META)
        return cls(
            model=meta_model(config.model, precision),
            plan=ExecutionPlan(
                kernels=kernel_set, dap=dap, num_recomputed_blocks=num_recomputed_blocks
            ),
            batch=meta_batch(
                config.data, batch_size=config.local_batch_size, num_passes=num_passes + 1
            ),
            dropout=DropoutState(seed=scalar, step=scalar, slots=slots)
            if config.use_dropout
            else None,
            loss=AlphaFoldLoss(config.loss),
            num_passes=num_passes,
        )

    def forward(self) -> ModelOutputs:
        """All passes, the last one with gradient."""
        return self.model(
            self.batch, self.plan, num_recycling_iterations=self.num_passes, dropout=self.dropout
        )

    def count_flops(self) -> StepFlops:
        """Of matrix products."""
        with FlopCounterMode(display=False) as forward:
            self.forward()
        with FlopCounterMode(display=False) as both:
            self.run()
        return StepFlops(forward=forward.get_total_flops(), both=both.get_total_flops())

    def run(self) -> None:
        """Forward, loss, backward."""
        self.loss(self.forward(), self.batch.at_pass(self.num_passes)).loss.backward()
