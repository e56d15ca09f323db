"""Order of the work on the template pairs under dynamic axial parallelism: groups of templates.

Templates do not interact, so the templates of all samples are split along the batch dim into
groups, as many as there would be chunks. Each group passes through all steps separately, without
chunks, and the transfers of one group overlap with the work on another. docs/dap.md has the table.
Template pairs are sharded over rows between blocks. On one device there is one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TypeVar

import torch
from torch import Tensor

from openfold_opt.model.axial_schedule import (
    PairUpdates,
    attend_ending,
    attend_starting,
    chunks_to_col,
    chunks_to_row,
    multiply,
    start_to_col,
    start_to_row,
)
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.stack import BlockDropout, PairMasks
from openfold_opt.parallel.async_collective import AsyncCollective

Module = TypeVar("Module")
Step = Callable[[Module, Iterable[Tensor], Tensor, Tensor | None, ExecutionPlan], Iterator[Tensor]]
"""multiply, attend_starting or attend_ending."""


def split_groups(x: Tensor, plan: ExecutionPlan) -> tuple[Tensor, ...]:
    """Split independent samples into at most `batch` groups, without copies.

    [batch, ..] -> [batch_g, ..] each
    """
    num_groups = 1 if plan.dap.size == 1 else plan.dap.num_chunks
    return (x,) if num_groups == 1 else x.chunk(num_groups)


def update_templates(
    block: PairUpdates,
    t_row: Sequence[Tensor],
    masks: PairMasks,
    dropout: BlockDropout,
    plan: ExecutionPlan,
) -> list[Tensor]:
    """Run one block of Algorithm 16.

    Args:
        block: the modules.
        t_row: groups of [batch * N_templ, N_res/dap, N_res, c_t].
        masks: masks of all groups.
        dropout: dropout masks of all groups.
        plan: kernels and DAP axis.

    Returns:
        The updated groups.
    """
    axis, num_res = plan.dap, masks.row.shape[2]
    to_col = partial(
        chunks_to_col, axis=axis, num_rows=repeat(num_res), what="templates to columns"
    )
    to_row = partial(chunks_to_row, axis=axis, num_cols=repeat(num_res), what="templates to rows")
    in_groups = partial(_run_in_groups, plan=plan)
    t = in_groups(attend_starting, block.tri_att_start, t_row, masks.row, dropout.starting)
    t = in_groups(attend_ending, block.tri_att_end, to_col(t), masks.col_transposed, dropout.ending)
    t = in_groups(multiply, block.tri_mul_out, to_row(t), masks.row, dropout.outgoing)
    t = in_groups(multiply, block.tri_mul_in, to_col(t), masks.col, dropout.incoming)
    relayout = partial(start_to_row, axis=axis, num_cols=num_res, what="templates to rows")
    return relayout_with_work(t, partial(block.pair_transition, plan=plan), relayout)


def normalize_in_columns(
    t_row: Sequence[Tensor], layer_norm: LayerNorm, plan: ExecutionPlan
) -> Tensor:
    """Normalize the groups, change them to columns and join them.

    Args:
        t_row: groups of [batch * N_templ, N_res/dap, N_res, c_t].
        layer_norm: the normalization.
        plan: kernels and DAP axis.

    Returns:
        [batch * N_templ, N_res, N_res/dap, c_t]
    """
    num_res = t_row[0].shape[2]
    relayout = partial(start_to_col, axis=plan.dap, num_rows=num_res, what="templates to columns")
    t_col = relayout_with_work(t_row, partial(layer_norm, plan=plan), relayout)
    return t_col[0] if len(t_col) == 1 else torch.cat(t_col)


def _run_in_groups(
    step: Step[Module],
    module: Module,
    t: Iterable[Tensor],
    mask: Tensor,
    dropout: Tensor | None,
    *,
    plan: ExecutionPlan,
) -> Iterator[Tensor]:
    """Run a step of the block for each group of templates.

    The call starts the step of all groups. Then the iterator completes one group after the other.

    Args:
        step: multiply, attend_starting or attend_ending.
        module: the module of the step.
        t: the groups.
        mask: the mask of all groups.
        dropout: the dropout mask of all groups, or None.
        plan: kernels and DAP axis.
    """
    dropouts = repeat(None) if dropout is None else split_groups(dropout, plan)
    groups = zip(t, split_groups(mask, plan), dropouts)
    started = [
        step(module, (group,), group_mask, group_dropout, plan.without_chunks())
        for group, group_mask, group_dropout in groups
    ]
    return chain.from_iterable(started)


def relayout_with_work(
    groups: Iterable[Tensor],
    work: Callable[[Tensor], Tensor],
    start: Callable[[Tensor], AsyncCollective],
) -> list[Tensor]:
    """Change the layout of each group and apply pointwise work to it, overlapping the two.

    The work may run before or after the change of layout. The last group is sent first and
    processed after it is received; the other groups are processed before they are sent. So the
    transfer of each group overlaps with the work on another one.

    Args:
        groups: the groups of a tensor.
        work: acts on each position (all channels of one element) separately.
        start: starts the change of layout of a group.
    """
    *others, last = groups
    early = start(last)
    collectives = [start(work(group)) for group in others]
    last = work(early.wait())
    return [*(collective.wait() for collective in collectives), last]
