"""The optimizer step. No other code changes the weights in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.losses.alphafold_loss import LossTerms
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.gradients import GradientReducer
from openfold_opt.train.optim.adam import Adam, OptimizerConfig
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer
from openfold_opt.train.optim.sample_clipping import SampleClipping, check_one_sample
from openfold_opt.train.optim.weight_average import WeightAverage, WeightAverageConfig
from openfold_opt.train.step_result import STOP_FLAGS, HostCopy, StepResult

NUM_EXTRAS = 32
"""Extra values at the end of the flat gradient buffer. They are all-reduced with the gradients.

Their order is finiteness flag, loss, loss terms, unused values, mean norm of samples, stop flags.
"""

_SAMPLE_NORM = -len(STOP_FLAGS) - 1
"""Position of the mean norm of samples in the extra values; unused unless samples are clipped."""

LossFunction = Callable[[ModelOutputs, FeatureBatch], LossTerms]


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """Configuration of a training step."""

    optimizer: OptimizerConfig = OptimizerConfig()
    weight_average: WeightAverageConfig = WeightAverageConfig()
    accumulation: int = 1
    """Micro-batches per step."""
    gradient_bucket_bytes: int = 64 * 2**20
    """Size of the part of the gradients that is all-reduced in one collective."""
    overlap: bool = True
    """Overlap the reduction of gradients with the backward pass."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Samples that the model processes together, on its device."""

    features: FeatureBatch
    slots: Tensor
    """[batch] int64: indices of the samples in the global batch."""
    sample_ids: tuple[str, ...]
    """Chain and seed of each sample, for messages."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepNumbers:
    """Values that differ between steps, besides the samples; device scalars for a captured step."""

    step: int | Tensor
    """Step number, from 1; int64 as a tensor."""
    learning_rate: float | Tensor
    """float64 as a tensor."""
    dropout_seed: int | Tensor | None
    """int64 as a tensor; None: no dropout."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTensors:
    """Metrics of a step on the device."""

    packed: Tensor
    """float32: is_applied, gradient norm, stop flags, loss, terms."""
    local_terms: Tensor
    """As in StepResult."""
    term_names: tuple[str, ...]


class TrainStep:
    """Forward pass with recycling, losses, backward pass, gradient averaging, clipping and Adam.

    It owns everything that a step changes: the parameters (in their buffer), the moments of Adam
    and the running average of the weights. If the weighted loss of any sample on any rank or the
    gradient norm is not finite, the step changes nothing. The device decides this, and the host
    reads the decision later.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: LossFunction,
        plan: ExecutionPlan,
        config: StepConfig,
        context: ParallelContext | None = None,
        dropout_seed: int | None = None,
        low_precision: Collection[str] = (),
        without_gradient: Collection[str] = (),
    ) -> None:
        """Move the parameters of the model, float32 on its device, into a flat buffer.

        dropout_seed: None trains without dropout. low_precision: names of the parameters that the
        model uses in bfloat16. without_gradient: names of the parameters that the loss does not
        depend on.
        """
        self.model = model
        self.buffer = ParameterBuffer(model, num_extras=NUM_EXTRAS, low_precision=low_precision)
        self.optimizer = Adam(self.buffer)
        self.weight_average = WeightAverage(self.buffer)
        self._loss = loss
        self._plan = plan
        self.config = config
        context = context if context is not None else ParallelContext.alone()
        optimizer = config.optimizer
        self._clipping: SampleClipping | None = None
        if optimizer.clip_per == "sample":
            self._clipping = SampleClipping(
                self.buffer,
                context.dap,
                max_norm=optimizer.clip_norm,
                accumulation=config.accumulation,
                bucket_bytes=config.gradient_bucket_bytes,
            )
        parameters = dict(model.named_parameters())
        self._reducer = GradientReducer(
            self.buffer.gradients,
            self.buffer.leaves,
            context.training_ranks,
            bucket_bytes=config.gradient_bucket_bytes,
            # A gradient that is clipped is complete only after the backward pass.
            overlaps=config.overlap and self._clipping is None,
            collect=self.buffer.collect_gradients,
            without_gradient=[parameters[name] for name in without_gradient],
        )
        self.dropout_seed = dropout_seed
        self._stop_flags = torch.zeros(len(STOP_FLAGS), device=self.buffer.values.device)
        self._constants = WeightUpdateConstants(
            beta_1=optimizer.beta_1,
            beta_2=optimizer.beta_2,
            epsilon=optimizer.epsilon,
            # The mean of clipped gradients is not clipped again.
            max_norm=optimizer.clip_norm if self._clipping is None else math.inf,
            decay_rate=config.weight_average.decay_rate,
        )

    def raise_stop_flag(self, name: str) -> None:
        """Raise one of STOP_FLAGS on all ranks with the next step. Repeated calls do no harm."""
        self._stop_flags[STOP_FLAGS.index(name)].fill_(1.0)

    def run(
        self,
        micro_batches: Iterable[MicroBatch],
        *,
        step: int,
        learning_rate: float,
        num_recycling_iterations: int,
    ) -> StepResult:
        """Launch optimizer step `step` (from 1) on `accumulation` micro-batches."""
        sample_ids: list[str] = []

        def record_ids() -> Iterator[MicroBatch]:
            for batch in micro_batches:
                sample_ids.extend(batch.sample_ids)
                yield batch

        numbers = StepNumbers(
            step=step, learning_rate=learning_rate, dropout_seed=self.dropout_seed
        )
        tensors = self.compute(
            record_ids(), numbers, num_recycling_iterations=num_recycling_iterations
        )
        return self.result(
            tensors,
            step=step,
            learning_rate=learning_rate,
            num_recycling_iterations=num_recycling_iterations,
            sample_ids=tuple(sample_ids),
        )

    def compute(
        self,
        micro_batches: Iterable[MicroBatch],
        numbers: StepNumbers,
        *,
        num_recycling_iterations: int,
    ) -> StepTensors:
        """Run the step without synchronizing the device.

        If the numbers are tensors, nothing is copied between host and device, either.
        """
        self.zero_gradients()
        rows: list[Tensor] = []
        names: tuple[str, ...] = ()
        for batch in micro_batches:
            is_last = len(rows) + 1 == self.config.accumulation
            terms = self.forward_backward(
                batch, numbers, num_recycling_iterations=num_recycling_iterations, is_last=is_last
            )
            names = tuple(terms.terms)
            rows.append(local_rows(terms))
        self.check_num_micro_batches(len(rows), step=numbers.step)
        packed = self.update(numbers.learning_rate, num_terms=len(names))
        return StepTensors(packed=packed, local_terms=torch.cat(rows), term_names=names)

    def zero_gradients(self) -> None:
        """Clear gradients and extra values before the first micro-batch of a step."""
        self.buffer.zero_gradients()
        if self._clipping is not None:
            self._clipping.zero_sum()

    def check_num_micro_batches(self, found: int, *, step: int | Tensor) -> None:
        """Raise ValueError if a step got another number of micro-batches than configured."""
        expected = self.config.accumulation
        if found != expected:
            raise ValueError(f"step {int(step)} got {found} micro-batches, expected {expected}")

    def result(
        self,
        tensors: StepTensors,
        *,
        step: int,
        learning_rate: float,
        num_recycling_iterations: int,
        sample_ids: tuple[str, ...],
    ) -> StepResult:
        """Start to copy the metrics of a step to the host."""
        return StepResult(
            step=step,
            num_recycling_iterations=num_recycling_iterations,
            learning_rate=learning_rate,
            term_names=tensors.term_names,
            packed=HostCopy(tensors.packed),
            local_terms=tensors.local_terms,
            sample_ids=sample_ids,
        )

    def forward_backward(
        self,
        batch: MicroBatch,
        numbers: StepNumbers,
        *,
        num_recycling_iterations: int,
        is_last: bool = False,
    ) -> LossTerms:
        """Return the loss of a micro-batch, and add its gradients and metrics to the buffer.

        is_last: whether this is the last micro-batch of the step. Gradients are then averaged
        during the backward pass.
        """
        if self._clipping is not None:
            check_one_sample(len(batch.slots))
        dropout = None
        if numbers.dropout_seed is not None:
            dropout = DropoutState(seed=numbers.dropout_seed, step=numbers.step, slots=batch.slots)
        outputs = self.model(
            batch.features,
            self._plan,
            num_recycling_iterations=num_recycling_iterations,
            dropout=dropout,
        )
        # The features of the last iteration follow those of the recycling iterations.
        terms = self._loss(outputs, batch.features.at_pass(num_recycling_iterations))
        self._add_extras(terms)
        if self._clipping is not None:
            terms.loss.backward()
            self._add_sample_norm(self._clipping.clip_sample())
            return terms
        if is_last:
            self._reducer.prepare_for_backward()
        (terms.loss / self.config.accumulation).backward()
        if not is_last:
            self.buffer.collect_gradients()
        return terms

    @torch.no_grad()
    def _add_extras(self, terms: LossTerms) -> None:
        """Add flag, loss and terms to the extra values after the gradients, and set the stop flags.

        The flag is 0 if all micro-batches so far are finite, else NaN, so that the average over
        ranks is NaN if the flag of any rank is.
        """
        extras = self.buffer.gradients[self.buffer.size :]
        # Flag, loss and mean norm take three of the values.
        max_terms = extras.numel() - 3 - len(STOP_FLAGS)
        if len(terms.terms) > max_terms:
            raise ValueError(f"found {len(terms.terms)} loss terms, expected at most {max_terms}")
        is_finite = torch.isfinite(terms.weighted_total).all()
        flag = extras.new_zeros(()).masked_fill(~is_finite, torch.nan)
        means = [value.float().mean() for value in terms.terms.values()]
        metrics = torch.stack([terms.loss.float(), *means]) / self.config.accumulation
        extras[0] += flag
        extras[1 : 1 + len(metrics)] += metrics
        extras[-len(STOP_FLAGS) :] = self._stop_flags

    @torch.no_grad()
    def _add_sample_norm(self, norm: Tensor) -> None:
        """Add the norm of a sample to the extra values. If it is not finite, set the flag."""
        extras = self.buffer.gradients[self.buffer.size :]
        extras[0] += extras.new_zeros(()).masked_fill(~torch.isfinite(norm), torch.nan)
        extras[_SAMPLE_NORM] += norm / self.config.accumulation

    @torch.no_grad()
    def update(self, learning_rate: float | Tensor, *, num_terms: int) -> Tensor:
        """Average and clip the gradients, and update the weights.

        Returns StepTensors.packed.
        """
        buffer = self.buffer
        if self._clipping is not None:
            self._clipping.copy_sum()
        square_sum = self._reducer.finish(buffer.size)
        if square_sum is None:
            # There is only one rank. With several, the reducer has collected the gradients.
            buffer.collect_gradients()
        gradient, extras = buffer.gradients[: buffer.size], buffer.gradients[buffer.size :]
        applied_and_norm = self._plan.kernels.weight_update(
            self.weight_state(),
            gradient,
            learning_rate=learning_rate,
            flag=extras[0],
            constants=self._constants,
            square_sum=square_sum,
        )
        if self._clipping is not None:
            applied_and_norm = torch.stack([applied_and_norm[0], extras[_SAMPLE_NORM]])
        return torch.cat([applied_and_norm, extras[-len(STOP_FLAGS) :], extras[1 : 2 + num_terms]])

    def weight_state(self) -> WeightState:
        """Return the tensors that a step changes."""
        return WeightState(
            values=self.buffer.values,
            exp_avg=self.optimizer.exp_avg,
            exp_avg_sq=self.optimizer.exp_avg_sq,
            average=self.weight_average.average,
            num_steps=self.optimizer.num_steps,
            num_updates=self.weight_average.num_updates,
            compute_copy=self.buffer.compute_copy,
        )


@torch.no_grad()
def local_rows(terms: LossTerms) -> Tensor:
    """Return the terms of each sample and their weighted sum, [batch, terms + 1] float32."""
    return torch.stack(
        [*(value.float() for value in terms.terms.values()), terms.weighted_total.float()], dim=1
    )
