"""One pass of the trunk without gradient: in place, in blocks, and sharded over rows.

Computes what AlphaFold.forward computes before the structure module (Algorithm 2, lines 5-18). The
features may stay on the host: each block of them is copied to the device when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.evoformer_stack import MSAStack
from openfold_opt.parallel.collectives import gather
from openfold_opt.predict.schedule.blocks import (
    EXTRA_MSA,
    MAIN_MSA,
    MSASteps,
    PredictionMasks,
    Representations,
    update_block,
)
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.schedule.sharded_pairs import own_rows
from openfold_opt.predict.schedule.templates import attend_to_templates


@dataclass(kw_only=True, eq=False)
class TrunkState:
    """Outputs of a pass of the trunk, and inputs of the next one."""

    z: Tensor
    """[batch, N_row, N_res, c_z]; the next pass overwrites it"""
    first_row: Tensor
    """[batch, N_res, c_m] float32: first row of the MSA representation"""
    s: Tensor
    """[batch, N_res, c_s] float32"""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreviousPass:
    """What a pass needs of the previous one."""

    state: TrunkState
    pseudo_beta: Tensor
    """[batch, N_res, 3] angstrom: predicted CB, or CA of glycine"""


@torch.no_grad()
def run_trunk(
    model: AlphaFold,
    features: FeatureBatch,
    previous: PreviousPass | None,
    plan: PredictionPlan,
) -> TrunkState:
    """Run the trunk once.

    Args:
        model: on the device; its trunk may be bfloat16.
        features: of one pass, from on_device. N_res is a multiple of the number of ranks.
        previous: None in the first pass. Its z is overwritten.
        plan: kernels, blocks and DAP axis.
    """
    z = _embed_pairs(model, features, previous, plan)
    mask = features.seq_mask
    extra_mask = _pad_sequences(features.extra_msa_mask.to(mask.device), plan)
    state = Representations(m=_embed_extra_msa(model, features, plan), z=z)
    _run_stack(model.extra_msa_stack, state, (mask, extra_mask), EXTRA_MSA, plan)
    # The extra MSA is freed before the MSA is embedded.
    state.m = None
    state.m = _embed_msa(model, features, previous, plan)
    # The row of a template exists at residues whose psi, the third torsion angle, exists.
    rows = [features.msa_mask]
    if model.config.has_templates:
        rows.append(features.template_torsion_angles_mask[..., 2])
    msa_mask = _pad_sequences(torch.cat(rows, dim=1), plan)
    _run_stack(model.evoformer_stack, state, (mask, msa_mask), MAIN_MSA, plan)
    # The row of rank 0 is the first row of the MSA.
    first_rows = gather(state.m[:, :1], plan.dap, dim=1, length=plan.dap.size, what="first row")
    # A copy, because a view would keep the whole MSA in memory.
    first_row = first_rows[:, 0].clone()
    del first_rows
    return TrunkState(
        z=z,
        first_row=first_row.float(),
        s=model.evoformer_stack.single(first_row).float(),
    )


MSA_FEATURES = (
    "msa_feat",
    "true_msa",
    "bert_mask",
    "extra_msa",
    "extra_msa_mask",
    "extra_has_deletion",
    "extra_deletion_value",
)
"""Features with a row for each sequence, which are copied to the device block by block."""


def on_device(features: FeatureBatch, device: torch.device) -> FeatureBatch:
    """Return the features with all but MSA_FEATURES on the device."""
    moved = {
        name: getattr(features, name).to(device)
        for name in FeatureBatch.__dataclass_fields__
        if name not in MSA_FEATURES
    }
    return replace(features, **moved)


def _run_stack(
    stack: MSAStack,
    state: Representations,
    masks: tuple[Tensor, Tensor],
    steps: MSASteps,
    plan: PredictionPlan,
) -> None:
    """Run Algorithm 6 or 18 in place; masks: of residues and of the MSA."""
    all_masks = PredictionMasks(
        residues=masks[0], msa=masks[1], outer_product_eps=stack.config.outer_product_eps
    )
    for block in stack.blocks:
        update_block(block, state, all_masks, steps, plan)


def _embed_msa(
    model: AlphaFold, features: FeatureBatch, previous: PreviousPass | None, plan: PredictionPlan
) -> Tensor:
    """Embed this rank's rows of the MSA and of the templates: [batch, N_seq/dap, N_res, c_m]."""
    embedder, device = model.input_embedder, features.seq_mask.device
    parts = [
        (
            features.msa_feat.shape[1],
            lambda rows: embedder.msa(features.target_feat, features.msa_feat[:, rows].to(device)),
        )
    ]
    if model.config.has_templates:
        angles = model.template_angle_embedder(
            features.template_aatype,
            features.template_torsion_angles_sin_cos,
            features.template_alt_torsion_angles_sin_cos,
            features.template_torsion_angles_mask,
        )
        parts.append((angles.shape[1], lambda rows: angles[:, rows]))
    m = _fill_own_rows(parts, embedder.linear_tf_m.weight, features.seq_mask, plan)
    if plan.dap.rank == 0:
        row = m.new_zeros(m[:, 0].shape, dtype=torch.float32)
        if previous is not None:
            row = previous.state.first_row
        m[:, 0] = m[:, 0] + model.recycling_embedder.layer_norm_m(row, plan)
    return m


def _embed_extra_msa(model: AlphaFold, features: FeatureBatch, plan: PredictionPlan) -> Tensor:
    """Embed this rank's rows of the extra MSA: [batch, N_extra/dap, N_res, c_e]."""
    mask = features.seq_mask
    inputs = (features.extra_msa, features.extra_has_deletion, features.extra_deletion_value)

    def embed(rows: slice) -> Tensor:
        return model.extra_msa_embedder(*(x[:, rows].to(mask.device) for x in inputs))

    weight = model.extra_msa_embedder.linear.weight
    return _fill_own_rows([(features.extra_msa.shape[1], embed)], weight, mask, plan)


def _fill_own_rows(
    parts: list[tuple[int, Callable[[slice], Tensor]]],
    weight: Tensor,
    like: Tensor,
    plan: PredictionPlan,
) -> Tensor:
    """Fill this rank's rows of a sharded MSA from parts that follow one another.

    Args:
        parts: number of rows, and function that embeds some of them, of each part.
        weight: [c, ..], gives the dtype and the number of channels.
        like: [batch, N_res]
        plan: blocks and DAP axis.

    Returns:
        [batch, N_seq/dap, N_res, c]; rows after the last part are zero.
    """
    total = sum(length for length, _ in parts)
    num_rows = plan.dap.shard_length(total)
    first, result = (
        plan.dap.rank * num_rows,
        weight.new_zeros(len(like), num_rows, like.shape[1], len(weight)),
    )
    start = 0
    for length, embed in parts:
        # Rows of this part that belong to this rank.
        begin, end = max(first, start), min(first + num_rows, start + length)
        for block in plan.blocks("embed_msa", max(end - begin, 0)):
            offset = begin - start
            result[:, begin - first + block.start : begin - first + block.stop] = embed(
                slice(offset + block.start, offset + block.stop)
            )
        start += length
    return result


def _pad_sequences(mask: Tensor, plan: PredictionPlan) -> Tensor:
    """Pad mask [batch, N_seq, N_res] with zeros to a multiple of the number of ranks."""
    padding = plan.dap.shard_length(mask.shape[1]) * plan.dap.size - mask.shape[1]
    return F.pad(mask, (0, 0, 0, padding))


def _embed_pairs(
    model: AlphaFold, residues: FeatureBatch, previous: PreviousPass | None, plan: PredictionPlan
) -> Tensor:
    """Embed this rank's rows of the pairs, templates included: [batch, N_row, N_res, c_z].

    In the first pass the embedding is cheap to repeat, so z is not stored before the templates are
    processed.
    """
    mask, device = residues.seq_mask, residues.seq_mask.device
    cols = (residues.target_feat, residues.residue_index)
    own_cols = tuple(own_rows(x, plan.dap, dim=1) for x in cols)
    beta = mask.new_zeros(*mask.shape, 3) if previous is None else previous.pseudo_beta
    own_beta, weight = own_rows(beta, plan.dap, dim=1), model.input_embedder.linear_relpos.weight
    z = None if previous is None else previous.state.z

    def embed(rows: slice, earlier: Tensor | None) -> Tensor:
        block = model.input_embedder.pairs(tuple(x[:, rows] for x in own_cols), cols)
        earlier = torch.zeros_like(block) if earlier is None else earlier
        update = model.recycling_embedder.pairs(earlier.float(), (own_beta[:, rows], beta), plan)
        return (block + update).to(block.dtype)

    def pair_rows(rows: slice) -> Tensor:
        return embed(rows, None) if z is None else z[:, rows].to(device)

    if z is not None:
        for rows in plan.blocks("embed_pairs", own_beta.shape[1]):
            z[:, rows] = embed(rows, z[:, rows])
        if plan.offload_pairs:
            # No other reference to the tensor on the device is left.
            previous.state.z = z = z.to("cpu")
    running = None
    if model.config.has_templates:
        modules = (
            model.template_pair_embedder,
            model.template_pair_stack,
            model.template_pointwise_attention.mha,
        )
        running = attend_to_templates(modules, residues, pair_rows, plan)
    is_stored = z is not None and z.device == device
    result = (
        z
        if is_stored
        else weight.new_empty(*mask[:, : own_beta.shape[1]].shape, mask.shape[1], len(weight))
    )
    for rows in plan.blocks("embed_pairs", own_beta.shape[1]):
        if running is not None:
            result[:, rows] = pair_rows(rows) + running.update(rows)
        elif not is_stored:
            result[:, rows] = pair_rows(rows)
    return result
