"""The optimiser's step by pieces of the flat tensors: each passes through the cache once, in place of once per operation."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from openfold_opt.kernels.cpu.pieces import PIECE_BYTES
from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.kernels.reference import weight_update as reference

_PIECE = PIECE_BYTES // 16
"""Elements; a piece of four float32 tensors is at work."""


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
    """kernels/reference/weight_update.py, which has the meaning; equal to it to the last bit.

    Where the norm or the flag is not finite, nothing is touched: on a CPU the host may look.
    """
    norm = torch.linalg.vector_norm(gradient) if square_sum is None else square_sum.sqrt().float()
    is_applied = torch.isfinite(norm) & torch.isfinite(flag)
    if is_applied:
        scale = (constants.max_norm / (norm + 1e-6)).clamp(max=1.0)
        state.num_steps.add_(1.0)
        for start in range(0, gradient.numel(), _PIECE):
            piece = slice(start, start + _PIECE)
            reference.update_elements(
                _part(state, piece),
                gradient[piece].mul_(scale),
                learning_rate=learning_rate,
                apply=is_applied,
                constants=constants,
            )
        state.num_updates.add_(1.0)
    return torch.stack([is_applied.float(), norm])


def _part(state: WeightState, piece: slice) -> WeightState:
    """The same state for a piece of the flat tensors."""
    flat = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return WeightState(**{name: value[piece] if value is not None and value.dim() == 1 else value for name, value in flat.items()})
