"""Templates without gradient: one after the other, in place, in blocks, and sharded over rows.

Each template passes through the whole stack alone. The attention of the pairs over the templates
is a softmax that is updated template by template, so that only one template is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.template_pair_embedder import (
    TemplatePairEmbedder,
    TemplateResidues,
)
from openfold_opt.model.template_pair_stack import TemplatePairStack
from openfold_opt.model.template_pointwise_attention import PointwiseAttention
from openfold_opt.predict.schedule.blocks import apply_transition, attend_ending, attend_starting
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.schedule.sharded_pairs import own_rows
from openfold_opt.predict.schedule.triangles import multiply

PairRows = Callable[[slice], Tensor]
"""Returns rows of the pair representation: [batch, n, N_res, c_z]."""


@dataclass(kw_only=True, eq=False)
class RunningAttention:
    """Softmax over the templates that were processed so far, of every pair and head."""

    weighted: Tensor
    """[batch, N_row, N_res, num_heads, c_hidden]: weighted sum of the values"""
    total: Tensor
    """[batch, N_row, N_res, num_heads] float32: sum of the weights"""
    maximum: Tensor
    """[batch, N_row, N_res, num_heads] float32: largest logit"""
    attention: PointwiseAttention
    has_template: Tensor
    """[batch]: 0 for a sample without templates, whose update is zero"""

    @classmethod
    def empty(
        cls, attention: PointwiseAttention, shape: tuple[int, ...], template_mask: Tensor
    ) -> RunningAttention:
        """Create for pairs of a shape [batch, N_row, N_res] before the first template.

        template_mask: [batch, N_templ]
        """
        heads, weight = attention.config.num_heads, attention.linear_v.weight
        sums = weight.new_zeros((2, *shape, heads), dtype=torch.float32)
        return cls(
            weighted=weight.new_zeros((*shape, heads, attention.config.c_hidden)),
            total=sums[0],
            maximum=sums[1].fill_(-torch.inf),
            attention=attention,
            has_template=(template_mask.sum(-1) > 0).to(weight.dtype),
        )

    def add(self, rows: slice, logits: Tensor, values: Tensor) -> None:
        """Add a template at some rows.

        Args:
            rows: of this rank.
            logits: [batch, n, N_res, num_heads]
            values: [batch, n, N_res, num_heads, c_hidden]
        """
        maximum, total = self.maximum[:, rows], self.total[:, rows]
        weighted = self.weighted[:, rows]
        larger = torch.maximum(maximum, logits)
        rescale, weight = torch.exp(maximum - larger), torch.exp(logits - larger)
        maximum.copy_(larger)
        total.mul_(rescale).add_(weight)
        rescale, weight = (x.to(values.dtype).unsqueeze(-1) for x in (rescale, weight))
        weighted.mul_(rescale).addcmul_(weight, values)

    def update(self, rows: slice) -> Tensor:
        """Return the update of rows of the pair representation: [batch, n, N_res, c_z]."""
        total = self.total[:, rows].to(self.weighted.dtype).unsqueeze(-1)
        update = self.attention.linear_o((self.weighted[:, rows] / total).flatten(-2))
        return update * self.has_template[:, None, None, None]


def attend_to_templates(
    modules: tuple[TemplatePairEmbedder, TemplatePairStack, PointwiseAttention],
    features: FeatureBatch,
    pair_rows: PairRows,
    plan: PredictionPlan,
) -> RunningAttention | None:
    """Run Algorithm 2, lines 9-13, up to the update of the pair representation.

    Args:
        modules: embedder, stack and attention.
        features: of one pass; those of templates are on the device.
        pair_rows: of the pair representation before the update.
        plan: kernels, blocks and DAP axis.

    Returns:
        None if there is no template.
    """
    embedder, stack, attention = modules
    exists = features.template_mask
    running = None
    for index in range(exists.shape[1]):
        # A template that does not exist has a weight of exactly zero beside one that does.
        if plan.skip_missing_templates and not bool(exists[:, index].any()):
            continue
        template = slice(index, index + 1)
        residues = TemplateResidues(
            features.template_aatype[:, template],
            features.template_pseudo_beta[:, template],
            features.template_pseudo_beta_mask[:, template],
            features.template_all_atom_mask[:, template],
        )
        t = _template_pairs(embedder, residues, plan)
        _run_stack(stack, t, features.seq_mask, plan)
        if running is None:
            running = RunningAttention.empty(attention, t.shape[:3], exists)
        offset = attention.config.mask_inf * (exists[:, index] - 1.0)
        for rows in plan.blocks("template_attention", t.shape[1]):
            k, v = attention.keys_and_values(stack.layer_norm(t[:, rows], plan))
            logits = (attention.queries(pair_rows(rows)) * k).sum(-1).float()
            running.add(rows, logits + offset[:, None, None, None], v)
        del t
    return running


def _template_pairs(
    embedder: TemplatePairEmbedder, residues: TemplateResidues, plan: PredictionPlan
) -> Tensor:
    """Embed one template: [batch, N_row, N_res, c_t]."""
    own = TemplateResidues(*(own_rows(x, plan.dap, dim=2) for x in residues))
    batch, _, num_rows = own.aatype.shape[:3]
    weight, num_res = embedder.linear.weight, residues.aatype.shape[2]
    t = weight.new_empty(batch, num_rows, num_res, len(weight))
    for rows in plan.blocks("template_pairs", num_rows):
        block = TemplateResidues(*(x[:, :, rows] for x in own))
        t[:, rows] = embedder.pairs(block, residues)[:, 0]
    return t


def _run_stack(stack: TemplatePairStack, t: Tensor, mask: Tensor, plan: PredictionPlan) -> None:
    """Run Algorithm 16 in place on t [batch, N_row, N_res, c_t], without the normalization."""
    for block in stack.blocks:
        attend_starting(block.tri_att_start, t, mask, plan)
        attend_ending(block.tri_att_end, t, mask, plan)
        multiply(block.tri_mul_out, t, mask, plan)
        multiply(block.tri_mul_in, t, mask, plan)
        apply_transition(block.pair_transition, t, "pair_transition", plan)
