"""Addition of an update to the residual stream, with gate and dropout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker


def dropout_residual(
    residual: Tensor, update: Tensor, mask: Tensor | None, gate: Tensor | None = None
) -> Tensor:
    """Compute residual + update * sigmoid(gate) * mask, without the factors that are None.

    Args:
        residual, update: [batch, ..., c]
        mask: broadcastable to update; 0 where dropped, 1 / (1 - rate) where kept. None: no dropout.
        gate: [batch, ..., c], before the sigmoid.

    Returns:
        [batch, ..., c] in the dtype of residual.
    """
    if gate is not None:
        update = update * torch.sigmoid(gate)
    update = update.to(residual.dtype)
    return (
        residual + update
        if mask is None
        else torch.addcmul(residual, update, mask.to(residual.dtype))
    )


@dataclass(frozen=True, kw_only=True)
class DropoutResidualShapes:
    """Shapes of the arguments of dropout_residual, with a mask shared by all rows, no gate."""

    batch: int
    n_1: int
    n_2: int
    c: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        shape = (self.batch, self.n_1, self.n_2, self.c)
        mask = make.dropout(self.batch, 1, self.n_2, self.c)

        def call(kernel: Kernel) -> Kernel:
            return lambda residual, update: kernel(residual, update, mask)

        leaves = make.leaf(*shape), make.leaf(*shape)
        return Arguments(leaves=leaves, others=(mask,), call=call)
