"""The optimizer step in one pass over the flat tensors instead of one pass per operation."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants


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
    """Compute kernels.reference.weight_update without modifying the gradient.

    If the norm or the flag is not finite, the state is not written: on the CPU, reading them does
    not block.
    """
    norm = torch.linalg.vector_norm(gradient) if square_sum is None else square_sum.sqrt().float()
    is_applied = torch.isfinite(norm) & torch.isfinite(flag)
    # On device meta there are no values, and the state does not change.
    if not is_applied.is_meta and is_applied:
        rates = _rates(state, norm, float(learning_rate), constants)
        call(
            "update_weights",
            gradient,
            state.values,
            state.exp_avg,
            state.exp_avg_sq,
            state.average,
            rates,
            gradient.numel(),
        )
        if state.compute_copy is not None:
            state.compute_copy.copy_(state.values)
    return torch.stack([is_applied.float(), norm])


def _rates(
    state: WeightState, norm: Tensor, learning_rate: float, constants: WeightUpdateConstants
) -> Tensor:
    """Increment the step counts and return `rates` [8] float32 of the C++ kernel."""
    state.num_steps.add_(1.0)
    count, is_first = state.num_steps.item(), state.num_updates.item() == 0
    state.num_updates.add_(1.0)
    rates = (
        (constants.max_norm / (norm + 1e-6)).clamp(max=1.0).item(),
        1.0 - constants.beta_1,
        constants.beta_2,
        1.0 - constants.beta_2,
        (1.0 - constants.beta_2**count) ** 0.5,
        learning_rate / (1.0 - constants.beta_1**count),
        constants.epsilon,
        1.0 if is_first else 1.0 - constants.decay_rate,
    )
    return torch.tensor(rates, dtype=torch.float32)
