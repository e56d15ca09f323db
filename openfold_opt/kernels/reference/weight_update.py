"""Clipping by the global norm, Adam, and running average of a flat tensor of all parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker
from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants

_EXAMPLE_CONSTANTS = WeightUpdateConstants(
    beta_1=0.9, beta_2=0.999, epsilon=1e-6, max_norm=0.1, decay_rate=0.9
)


@torch.no_grad()
def weight_update(
    state: WeightState,
    gradient: Tensor,
    *,
    learning_rate: float | Tensor,
    flag: Tensor,
    constants: WeightUpdateConstants,
    square_sum: Tensor | None = None,
) -> Tensor:
    """Take one optimizer step in place; docs/optimizer.md has the equations.

    If the norm or the flag is not finite, the state does not change. The device checks this, so
    that the host does not wait.

    Args:
        state: updated in place.
        gradient: [n] float32, averaged over ranks and micro-batches; overwritten.
        learning_rate: a number, or a scalar tensor on the device of state.
        flag: scalar; if it is not finite, the step is skipped.
        constants: of Adam, clipping and averaging.
        square_sum: sum of squares of the gradient, float64 scalar; None: computed here.

    Returns:
        [2] float32 on the device: 1 if the step was taken, and the norm before clipping.
    """
    norm = torch.linalg.vector_norm(gradient) if square_sum is None else square_sum.sqrt().float()
    gradient.mul_((constants.max_norm / (norm + 1e-6)).clamp(max=1.0))
    is_applied = torch.isfinite(norm) & torch.isfinite(flag)
    state.num_steps.add_(is_applied.to(torch.float64))
    _adam(state, gradient, learning_rate, is_applied, constants)
    _average(state, is_applied, constants)
    if state.compute_copy is not None:
        state.compute_copy.copy_(state.values)
    state.num_updates.add_(is_applied.to(torch.float32))
    return torch.stack([is_applied.float(), norm])


def _adam(
    state: WeightState,
    grad: Tensor,
    learning_rate: float | Tensor,
    apply: Tensor,
    constants: WeightUpdateConstants,
) -> None:
    grad = torch.where(apply, grad, torch.zeros((), device=grad.device))
    applied = apply.to(torch.float64)
    state.exp_avg.lerp_(grad, ((1.0 - constants.beta_1) * applied).to(torch.float32))
    decay_2 = (1.0 - (1.0 - constants.beta_2) * applied).to(torch.float32)
    state.exp_avg_sq.mul_(decay_2).addcmul_(grad, grad, value=1.0 - constants.beta_2)
    # If the first step is skipped, the count is 0 and the bias corrections would be 0.
    count = state.num_steps.clamp(min=1.0)
    correction_1 = 1.0 - constants.beta_1**count
    root_correction_2 = (1.0 - constants.beta_2**count).sqrt()
    step_size = (applied * learning_rate / correction_1).to(torch.float32)
    denominator = (
        state.exp_avg_sq.sqrt().div_(root_correction_2.to(torch.float32)).add_(constants.epsilon)
    )
    update = torch.div(state.exp_avg, denominator, out=denominator)
    state.values.sub_(update.mul_(step_size))


def _average(state: WeightState, apply: Tensor, constants: WeightUpdateConstants) -> None:
    # The first update copies the values. Filling on the device avoids a copy from the host.
    weight = torch.full_like(state.num_updates, 1.0 - constants.decay_rate).masked_fill(
        state.num_updates == 0, 1.0
    )
    state.average.lerp_(state.values, weight * apply.to(torch.float32))


@dataclass(frozen=True, kw_only=True)
class WeightUpdateShapes:
    """Shapes of the arguments of weight_update.

    The compute copy exists if the dtype is bfloat16, as in a run with precision bf16.
    """

    num_parameters: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes, for the first step."""
        values, gradient = make.full(self.num_parameters), make.full(self.num_parameters)
        moments = [make.full(self.num_parameters, value=0.0) for _ in range(3)]
        flag, num_updates = make.full(value=0.0), make.full(value=0.0)
        num_steps, learning_rate = (make.full(value=x).double() for x in (0.0, 1e-3))
        has_copy = make.dtype == torch.bfloat16
        state = WeightState(
            values=values,
            exp_avg=moments[0],
            exp_avg_sq=moments[1],
            average=moments[2],
            num_steps=num_steps,
            num_updates=num_updates,
            compute_copy=values.bfloat16() if has_copy else None,
        )

        def call(kernel: Kernel) -> Kernel:
            return lambda: kernel(
                state,
                gradient,
                learning_rate=learning_rate,
                flag=flag,
                constants=_EXAMPLE_CONSTANTS,
            )

        updated = tuple(x for x in vars(state).values() if x is not None)
        read = updated if state.compute_copy is None else updated[:-1]
        others = (*read, gradient, flag, learning_rate)
        return Arguments(others=others, updated=updated, call=call)
