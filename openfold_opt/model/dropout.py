"""Dropout as a function of seed, optimizer step, slot in the global batch, pass, place in the model and element.

Supplement 1.11.6. A place is one dropout of one block; its number is fixed here and never depends on how the
model is run, so plain and fused kernels, recomputation and every way of splitting a batch draw the same masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.model.plan import ExecutionPlan

TEMPLATE_PAIR_STACK, EXTRA_MSA_STACK, EVOFORMER_STACK, STRUCTURE_MODULE = range(4)
"""Parts of the model that have dropout."""

MSA_ROW_ATTENTION, TRIANGLE_OUTGOING, TRIANGLE_INCOMING, TRIANGLE_STARTING, TRIANGLE_ENDING = range(
    5
)
"""Dropouts within a block of one of the stacks."""

POINT_ATTENTION, STRUCTURE_TRANSITION = range(2)
"""Dropouts within a block of the structure module."""

_BLOCKS_PER_PART, _SITES_PER_BLOCK = 4096, 16


def dropout_site(part: int, block: int, site: int) -> int:
    """Number of one dropout in the model: the second word of the random counter."""
    return (part * _BLOCKS_PER_PART + block) * _SITES_PER_BLOCK + site


@dataclass(frozen=True, kw_only=True, eq=False)
class DropoutState:
    """What dropout depends on, apart from the place in the model. No state at all (None) means no dropout."""

    seed: int | Tensor
    """Seed of the run; its low 32 bits count."""
    step: int | Tensor
    """Optimizer step."""
    slots: Tensor
    """[batch] int64: position of each sample in the global batch of the step."""

    def at_pass(self, pass_index: int) -> PassDropout:
        """Dropout of one recycling pass."""
        return PassDropout(state=self, pass_index=pass_index)


@dataclass(frozen=True, kw_only=True, eq=False)
class PassDropout:
    """Dropout of one recycling pass."""

    state: DropoutState
    pass_index: int

    def masks(
        self,
        plan: ExecutionPlan,
        *,
        part: int,
        site: int,
        num_blocks: int,
        shape: tuple[int, ...],
        rate: float,
    ) -> Tensor:
        """Masks of the same site in all blocks of a part: [num_blocks, batch, *shape], 0 or 1 / (1 - rate)."""
        slots = self.state.slots
        first = dropout_site(part, 0, site)
        places = torch.arange(
            first,
            first + num_blocks * _SITES_PER_BLOCK,
            _SITES_PER_BLOCK,
            dtype=torch.int64,
            device=slots.device,
        )
        return plan.kernels.dropout_masks(
            (self.state.seed, self.state.step),
            places,
            slots,
            pass_index=self.pass_index,
            shape=shape,
            rate=rate,
        )
