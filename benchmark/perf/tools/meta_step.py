"""A training step on meta tensors, which have shapes but no values. Any size runs in seconds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer
from openfold_opt.train.precision import meta_training_model
from openfold_opt.train.synthetic_features import meta_batch

META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class StepFlops:
    """Floating-point operations of matrix products."""

    forward: int
    """One pass without gradient, as in a recycling iteration."""
    both: int
    """The last pass: forward, loss and backward."""

    def of_step(self, num_recycling_iterations: int) -> int:
        """Return the operations of a step with this number of recycling iterations."""
        return num_recycling_iterations * self.forward + self.both


@dataclass(frozen=True, kw_only=True, eq=False)
class MetaStep:
    """Model, inputs and loss of a step, all on the meta device."""

    model: AlphaFold
    buffer: ParameterBuffer
    plan: ExecutionPlan
    batch: FeatureBatch
    dropout: DropoutState | None
    loss: AlphaFoldLoss
    num_recycling_iterations: int = 0

    @classmethod
    def build(
        cls,
        config: RunConfig,
        *,
        kernels: str,
        precision: str,
        num_recycling_iterations: int = 0,
        dap: AxisGroup = AxisGroup.single("dap"),
        num_recomputed_blocks: int = 0,
    ) -> MetaStep:
        """Build the step of a preset with one implementation of all operations."""
        kernel_set = build_kernel_set(KernelConfig.all(kernels), META, config.model.kernel_shapes())
        scalar = torch.zeros((), dtype=torch.int64, device=META)
        slots = torch.zeros(config.local_batch_size, dtype=torch.int64, device=META)
        model, buffer = meta_training_model(config.model, precision)
        return cls(
            model=model,
            buffer=buffer,
            plan=ExecutionPlan(
                kernels=kernel_set, dap=dap, num_recomputed_blocks=num_recomputed_blocks
            ),
            batch=meta_batch(
                config.data,
                batch_size=config.local_batch_size,
                num_passes=num_recycling_iterations + 1,
            ),
            dropout=DropoutState(seed=scalar, step=scalar, slots=slots)
            if config.use_dropout
            else None,
            loss=AlphaFoldLoss(config.loss),
            num_recycling_iterations=num_recycling_iterations,
        )

    def forward(self) -> ModelOutputs:
        """Run all forward passes, the last one with gradient."""
        return self.model(
            self.batch,
            self.plan,
            num_recycling_iterations=self.num_recycling_iterations,
            dropout=self.dropout,
        )

    def count_flops(self) -> StepFlops:
        """Count the operations of the matrix products; for a step without recycling iterations."""
        with FlopCounterMode(display=False) as forward:
            self.forward()
        with FlopCounterMode(display=False) as both:
            self.run()
        return StepFlops(forward=forward.get_total_flops(), both=both.get_total_flops())

    def run(self) -> None:
        """Run forward, loss and backward, and add the gradients to the flat gradients."""
        batch = self.batch.at_pass(self.num_recycling_iterations)
        self.loss(self.forward(), batch).loss.backward()
        self.buffer.collect_gradients()
