"""One optimizer step: the only place where weights change."""

from __future__ import annotations

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
from openfold_opt.train.optimizer import Adam, OptimizerConfig
from openfold_opt.train.parameter_buffer import ParameterBuffer
from openfold_opt.train.schedule import ScheduleConfig, learning_rate
from openfold_opt.train.weight_average import WeightAverage, WeightAverageConfig

NUM_EXTRAS = 32
"""Places behind the gradients for the finiteness flag, the loss and its terms, and in the last of them the signals."""

STOP_FLAGS = ("target reached", "asked to stop")
"""What any rank may have to tell all others between two steps. It rides with the gradients, so all ranks hear of it at the same step."""

LossFunction = Callable[[ModelOutputs, FeatureBatch], LossTerms]


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What a training step does to the weights."""

    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    weight_average: WeightAverageConfig = WeightAverageConfig()
    accumulation: int = 1
    """Micro-batches of a step."""
    gradient_bucket_bytes: int = 64 * 2**20
    overlap: bool = True
    """Gradients are averaged behind the backward pass."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Samples that go through the model together, on the device of the model."""

    features: FeatureBatch
    slots: Tensor
    """[batch] int64: places of the samples in the global batch."""
    sample_ids: tuple[str, ...]
    """For messages: chain and seed of each sample."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """A finished step in plain numbers; loss and terms are means over the global batch."""

    step: int
    num_recycling_iterations: int
    learning_rate: float
    is_applied: bool
    """False: something was not finite, and no weight changed."""
    loss: float
    gradient_norm: float
    terms: dict[str, float]
    stop_flags: tuple[str, ...]
    """Those of SIGNALS that any rank had raised when it made this step."""


class HostCopy:
    """A small tensor on its way to the host, behind the work that is queued on the device."""

    def __init__(self, x: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = x
        if x.device.type == "cuda":
            self._values = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            self._values.copy_(x, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        """Wait for the copy to arrive; its values."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class StepResult:
    """A step that was launched; its figures travel to the host behind it."""

    step: int
    num_recycling_iterations: int
    learning_rate: float
    term_names: tuple[str, ...]
    packed: HostCopy
    """is_applied, gradient norm, signals, loss, terms."""
    local_terms: Tensor
    """[samples of this rank, terms + 1] float32: unweighted terms, then their weighted sum."""
    sample_ids: tuple[str, ...]
    """Of this rank, in the order of local_terms."""

    def read(self) -> StepMetrics:
        """Wait for the step to end on the device, and return its figures."""
        is_applied, norm, *signals_and_loss = self.packed.read()
        stop_flags, (loss, *terms) = (
            signals_and_loss[: len(STOP_FLAGS)],
            signals_and_loss[len(STOP_FLAGS) :],
        )
        return StepMetrics(
            step=self.step,
            num_recycling_iterations=self.num_recycling_iterations,
            learning_rate=self.learning_rate,
            is_applied=bool(is_applied),
            loss=loss,
            gradient_norm=norm,
            terms=dict(zip(self.term_names, terms, strict=True)),
            stop_flags=tuple(name for name, value in zip(STOP_FLAGS, stop_flags) if value > 0.0),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StepNumbers:
    """What differs from step to step beside the samples; scalars on the device where the step is recorded once for all."""

    step: int | Tensor
    """From 1; int64."""
    learning_rate: float | Tensor
    """float64."""
    dropout_seed: int | Tensor | None
    """int64; None: no dropout."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTensors:
    """Figures of a step on the device."""

    packed: Tensor
    """is_applied, gradient norm, signals, loss, terms: float32"""
    local_terms: Tensor
    """As in StepResult."""
    term_names: tuple[str, ...]


class TrainStep:
    """Forward with recycling, losses, backward, averaging, clipping, Adam, running average.

    Owns everything that a step changes: the parameters (through their buffer), Adam's moments and the
    averaged weights. If the weighted loss of any sample on any rank, or the gradient norm, is not
    finite, clipping, Adam and average are no-ops; the device decides that, the host only reads it later.
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
        """Takes the parameters of the model, which are float32 and on its device, into its buffer.

        dropout_seed: None trains without dropout. low_precision: parameters that the model is to use in bfloat16.
        without_gradient: parameters that the loss does not depend on.
        """
        self.model = model
        self.buffer = ParameterBuffer(model, num_extras=NUM_EXTRAS, low_precision=low_precision)
        self.optimizer = Adam(self.buffer)
        self.weight_average = WeightAverage(self.buffer)
        self._loss = loss
        self._plan = plan
        self.config = config
        parameters = dict(model.named_parameters())
        self._reducer = GradientReducer(
            self.buffer.gradients,
            self.buffer.places(model),
            (context if context is not None else ParallelContext.alone()).training_ranks,
            bucket_bytes=config.gradient_bucket_bytes,
            overlaps=config.overlap,
            collect=self.buffer.collect_gradients,
            without_gradient=[parameters[name] for name in without_gradient],
        )
        self.dropout_seed = dropout_seed
        self._stop_flags = torch.zeros(len(STOP_FLAGS), device=self.buffer.values.device)
        optimizer = config.optimizer
        self._constants = WeightUpdateConstants(
            beta_1=optimizer.beta_1,
            beta_2=optimizer.beta_2,
            epsilon=optimizer.epsilon,
            max_norm=optimizer.clip_norm,
            decay_rate=config.weight_average.decay_rate,
        )

    def raise_stop_flag(self, name: str) -> None:
        """Let the next step tell all ranks one of SIGNALS; a second call changes nothing."""
        self._stop_flags[STOP_FLAGS.index(name)].fill_(1.0)

    def run(
        self, micro_batches: Iterable[MicroBatch], *, step: int, num_recycling_iterations: int
    ) -> StepResult:
        """Make optimizer step number `step` (from 1) out of `accumulation` micro-batches."""
        sample_ids: list[str] = []

        def noted() -> Iterator[MicroBatch]:
            for batch in micro_batches:
                sample_ids.extend(batch.sample_ids)
                yield batch

        numbers = StepNumbers(
            step=step,
            learning_rate=learning_rate(self.config.schedule, step),
            dropout_seed=self.dropout_seed,
        )
        tensors = self.compute(noted(), numbers, num_recycling_iterations=num_recycling_iterations)
        return self.result(
            tensors,
            step=step,
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
        """The step as work for the device alone: the host waits for nothing, and reads and sends nothing if the numbers are tensors."""
        self.buffer.zero_gradients()
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

    def check_num_micro_batches(self, found: int, *, step: int | Tensor) -> None:
        """Raise ValueError if a step did not get the micro-batches that its configuration says."""
        expected = self.config.accumulation
        if found != expected:
            raise ValueError(f"step {int(step)} got {found} micro-batches, expected {expected}")

    def result(
        self,
        tensors: StepTensors,
        *,
        step: int,
        num_recycling_iterations: int,
        sample_ids: tuple[str, ...],
    ) -> StepResult:
        """What the step's figures can be read from, once they have come to the host."""
        return StepResult(
            step=step,
            num_recycling_iterations=num_recycling_iterations,
            learning_rate=learning_rate(self.config.schedule, step),
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
        """Loss of a micro-batch; its gradients, and its figures behind them, are added to those of the buffer.

        is_last: of the step, so that gradients may be averaged as they are made.
        """
        dropout = None
        if numbers.dropout_seed is not None:
            dropout = DropoutState(seed=numbers.dropout_seed, step=numbers.step, slots=batch.slots)
        outputs = self.model(
            batch.features,
            self._plan,
            num_recycling_iterations=num_recycling_iterations,
            dropout=dropout,
        )
        # the pass with gradient works on the slice after those of the passes without
        terms = self._loss(outputs, batch.features.at_pass(num_recycling_iterations))
        self._load_extras(terms)
        if is_last:
            self._reducer.prepare_for_backward()
        (terms.loss / self.config.accumulation).backward()
        if not is_last:
            self.buffer.collect_gradients()
        return terms

    @torch.no_grad()
    def _load_extras(self, terms: LossTerms) -> None:
        """Add flag, loss and terms to the tail of the gradients: [flag, loss, term, term, ...].

        The flag is 0 while all is finite and NaN ever after, so the averaged one is NaN if any rank's is.
        """
        extras = self.buffer.gradients[self.buffer.size :]
        most = extras.numel() - 2 - len(STOP_FLAGS)
        if len(terms.terms) > most:
            raise ValueError(f"found {len(terms.terms)} loss terms, expected at most {most}")
        is_finite = torch.isfinite(terms.weighted_total).all()
        flag = extras.new_zeros(()).masked_fill(~is_finite, torch.nan)
        means = [value.float().mean() for value in terms.terms.values()]
        metrics = torch.stack([terms.loss.float(), *means]) / self.config.accumulation
        extras[0] += flag
        extras[1 : 1 + len(metrics)] += metrics
        extras[-len(STOP_FLAGS) :] = self._stop_flags

    @torch.no_grad()
    def update(self, rate: float | Tensor, *, num_terms: int) -> Tensor:
        """Average, clip, step. Returns [is_applied, norm, signals ..., loss, terms ...] float32 on the device."""
        buffer = self.buffer
        square_sum = self._reducer.finish(buffer.size)
        if square_sum is None:
            buffer.collect_gradients()
        gradient, extras = buffer.gradients[: buffer.size], buffer.gradients[buffer.size :]
        applied_and_norm = self._plan.kernels.weight_update(
            self.weight_state(),
            gradient,
            learning_rate=rate,
            flag=extras[0],
            constants=self._constants,
            square_sum=square_sum,
        )
        return torch.cat([applied_and_norm, extras[-len(STOP_FLAGS) :], extras[1 : 2 + num_terms]])

    def weight_state(self) -> WeightState:
        """What a step changes."""
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
    """[batch, terms + 1] float32: every term of every sample, and the weighted sum."""
    return torch.stack(
        [*(value.float() for value in terms.terms.values()), terms.weighted_total.float()], dim=1
    )
