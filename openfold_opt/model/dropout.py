"""Dropout masks as a function of seed, step, slot in the global batch, pass, site and element.

Supplement 1.11.6. A dropout site is one dropout layer of one block. Its number is defined here and
does not depend on the execution, so reference and fused kernels, recomputation and every split of a
batch use the same masks.
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
"""Dropout sites within a block of a stack."""

POINT_ATTENTION, STRUCTURE_TRANSITION = range(2)
"""Dropout sites within a block of the structure module."""

_BLOCKS_PER_PART, _SITES_PER_BLOCK = 4096, 16


def dropout_site(part: int, block: int, site: int) -> int:
    """Return the number of a dropout site: the second word of the random counter."""
    return (part * _BLOCKS_PER_PART + block) * _SITES_PER_BLOCK + site


@dataclass(frozen=True, kw_only=True, eq=False)
class DropoutState:
    """Inputs of the dropout masks besides the site; None instead of a state disables dropout."""

    seed: int | Tensor
    """Seed of the run; the low 32 bits are used."""
    step: int | Tensor
    """Optimizer step."""
    slots: Tensor
    """[batch] int64: position of each sample in the global batch of the step."""

    def at_pass(self, pass_index: int) -> PassDropout:
        """Return the dropout of one pass."""
        return PassDropout(state=self, pass_index=pass_index)


@dataclass(frozen=True, kw_only=True, eq=False)
class PassDropout:
    """Dropout of one pass through the model."""

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
        """Return the masks of the same site in all blocks of a part.

        Returns:
            [num_blocks, batch, *shape], 0 or 1 / (1 - rate).
        """
        slots = self.state.slots
        first = dropout_site(part, 0, site)
        sites = torch.arange(
            first,
            first + num_blocks * _SITES_PER_BLOCK,
            _SITES_PER_BLOCK,
            dtype=torch.int64,
            device=slots.device,
        )
        return plan.kernels.dropout_masks(
            (self.state.seed, self.state.step),
            sites,
            slots,
            pass_index=self.pass_index,
            shape=shape,
            rate=rate,
        )
