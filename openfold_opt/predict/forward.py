"""Prediction of one chain: recycling iterations, structure and confidences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.model.alphafold import AlphaFold, final_positions, pseudo_beta_positions
from openfold_opt.model.auxiliary_heads import predicted_lddt
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.structure_module import Structure
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.schedule.structure import (
    AlignedErrors,
    PairRowSink,
    predict_aligned_errors,
    predict_structure,
    send_distogram,
    send_pairs,
)
from openfold_opt.predict.schedule.trunk import (
    PreviousPass,
    TrunkState,
    on_device,
    run_trunk,
)
from openfold_opt.protein.features import FEATURES
from openfold_opt.protein.residue_constants import atom_order


class RowSink(Protocol):
    """Receives rows of a matrix on the first rank, in any order."""

    def __call__(self, start: int, rows: np.ndarray) -> None:
        """Receive rows [n, ..] float32, the first of which has the number `start`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSinks:
    """Where the matrices of a prediction go; None: not requested.

    All ranks that share a chain need the same ones, but only the first rank calls them.
    """

    pae: RowSink | None = None
    """Predicted aligned errors, angstrom: [n, N_res]. The model needs a TM-score head."""
    distogram: RowSink | None = None
    """Logits of the distogram: [n, N_res, num_bins]"""
    single: RowSink | None = None
    """Single representation of the last pass: [n, c_s]"""
    pair: RowSink | None = None
    """Pair representation of the last pass: [n, N_res, c_z]"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Prediction of one chain."""

    positions: np.ndarray
    """[N_res, 37, 3] float32 angstrom"""
    atom_mask: np.ndarray
    """[N_res, 37] bool: the residue type has the atom"""
    plddt: np.ndarray
    """[N_res] float32, 0..100"""
    ptm: float | None
    """Predicted TM score; None without a TM-score head."""
    max_pae: float | None
    """Center of the last bin of the aligned error, angstrom; None without a TM-score head."""
    num_recycling_iterations: int
    """Iterations that ran; fewer than requested if the tolerance was reached."""
    recycling_changes: tuple[float, ...]
    """For each recycling iteration, root mean square change of the distances between alpha carbons,
    angstrom."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LastPass:
    """State on the device after the last pass."""

    trunk: TrunkState
    structure: Structure
    positions: Tensor
    """[batch, N_res, 37, 3] angstrom"""
    residues: FeatureBatch
    """Features of the last pass; those of residues are on the device."""
    changes: tuple[float, ...]


@torch.no_grad()
def predict_chain(
    model: AlphaFold,
    batch: FeatureBatch,
    plan: PredictionPlan,
    *,
    num_recycling_iterations: int,
    recycling_tolerance: float | None = None,
    sinks: RowSinks = RowSinks(),
    on_pass: Callable[[int, float | None], None] | None = None,
) -> Prediction:
    """Predict the structure of one chain; all ranks return the same prediction.

    Args:
        model: on the device, in evaluation mode; its trunk may be bfloat16.
        batch: features of one whole chain with num_recycling_iterations + 1 slices, on any device.
            Every rank of plan.dap has the same batch.
        plan: kernels, blocks and DAP axis.
        num_recycling_iterations: maximum number of recycling iterations.
        recycling_tolerance: stop recycling when the root mean square change of the distances
            between alpha carbons is below this value, angstrom; None: never.
        sinks: receive the matrices that are requested.
        on_pass: called after each pass with its number, from 0, and the change in angstrom, which
            is None for the first pass.

    Raises:
        FloatingPointError: an output is not finite; the message names it.
        ValueError: the batch has more than one chain.
    """
    if batch.batch_size != 1:
        raise ValueError(
            f"expected the features of one chain, found a batch of {batch.batch_size}; "
            "predict the chains one by one"
        )
    length = int(batch.seq_length[0])
    last = run_passes(
        model,
        batch,
        plan,
        num_recycling_iterations=num_recycling_iterations,
        recycling_tolerance=recycling_tolerance,
        on_pass=on_pass,
    )
    plddt = predicted_lddt(model.auxiliary_heads.plddt(last.structure.states[:, -1], plan))
    _check_finite("atom positions", last.positions[:, :length])
    _check_finite("pLDDT", plddt[:, :length])
    errors = _send_matrices(model, last, plan, sinks)
    return Prediction(
        positions=last.positions[0, :length].float().cpu().numpy(),
        atom_mask=last.residues.atom37_atom_exists[0, :length].cpu().numpy() > 0.5,
        plddt=plddt[0, :length].float().cpu().numpy(),
        ptm=None if errors is None else float(errors.ptm[0]),
        max_pae=None if errors is None else errors.largest,
        num_recycling_iterations=len(last.changes),
        recycling_changes=last.changes,
    )


@torch.no_grad()
def run_passes(
    model: AlphaFold,
    batch: FeatureBatch,
    plan: PredictionPlan,
    *,
    num_recycling_iterations: int,
    recycling_tolerance: float | None = None,
    on_pass: Callable[[int, float | None], None] | None = None,
    keep_msa: bool = False,
) -> LastPass:
    """Run the recycling iterations and the last pass; arguments as in predict_chain.

    The batch may have several samples. keep_msa: keep the MSA representation of the last pass.
    """
    batch = pad_residues(batch, multiple_of=plan.dap.size)
    device = model.input_embedder.linear_tf_m.weight.device
    previous, positions, changes = None, None, []
    for index in range(num_recycling_iterations + 1):
        residues = on_device(batch.at_pass(index), device)
        trunk = run_trunk(model, residues, previous, plan, keep_msa=keep_msa)
        structure = predict_structure(model, trunk, (residues.aatype, residues.seq_mask), plan)
        earlier, positions = positions, final_positions(residues, structure)
        change = None
        if earlier is not None:
            change = _distance_change(earlier, positions, residues.seq_mask, plan)
            changes.append(change)
        if on_pass is not None:
            on_pass(index, change)
        if index == num_recycling_iterations or (
            change is not None and recycling_tolerance is not None and change < recycling_tolerance
        ):
            break
        beta = pseudo_beta_positions(residues.aatype, positions)
        previous = PreviousPass(state=trunk, pseudo_beta=beta)
    return LastPass(
        trunk=trunk,
        structure=structure,
        positions=positions,
        residues=residues,
        changes=tuple(changes),
    )


def pad_residues(batch: FeatureBatch, *, multiple_of: int) -> FeatureBatch:
    """Pad the residues of all features with zeros to a multiple of the number of ranks.

    Masks are zero in the padding, so it changes no result.
    """
    padding = -batch.aatype.shape[1] % multiple_of
    if padding == 0:
        return batch
    padded = {}
    for name, spec in FEATURES.items():
        if "N_res" in spec.shape:
            x = getattr(batch, name)
            after = len(spec.shape) - 1 - spec.shape.index("N_res")
            padded[name] = F.pad(x, (0, 0) * after + (0, padding))
    return replace(batch, **padded)


def _send_matrices(
    model: AlphaFold, last: LastPass, plan: PredictionPlan, sinks: RowSinks
) -> AlignedErrors | None:
    """Send the rows of the matrices, and return the predicted TM score."""
    z, mask = last.trunk.z, last.residues.seq_mask
    length = int(last.residues.seq_length[0])
    if sinks.single is not None and plan.dap.rank == 0:
        sinks.single(0, last.trunk.s[0, :length].cpu().float().numpy())
    if sinks.pair is not None:
        send_pairs(z, plan, _without_padding(sinks.pair, length))
    if sinks.distogram is not None:
        send_distogram(model, z, plan, _without_padding(sinks.distogram, length))
    if not model.config.auxiliary_heads.has_tm_score:
        if sinks.pae is not None:
            raise ValueError(
                "the model has no TM-score head, so it predicts no aligned errors; use weights "
                "that have one (pTM) or do not request them"
            )
        return None
    pae_rows = None if sinks.pae is None else _without_padding(sinks.pae, length)
    errors = predict_aligned_errors(model, z, mask, plan, pae_rows)
    _check_finite("predicted TM score", errors.ptm)
    return errors


def _without_padding(sink: RowSink, length: int) -> PairRowSink:
    """Return a sink for tensors with padding, which it removes."""

    def send(start: int, rows: Tensor) -> None:
        rows = rows[: max(length - start, 0), :length]
        if len(rows):
            # A conversion on the device would need memory for a second block.
            sink(start, rows.cpu().float().numpy())

    return send


def _distance_change(earlier: Tensor, later: Tensor, mask: Tensor, plan: PredictionPlan) -> float:
    """Return the root mean square change of the distances between alpha carbons, angstrom.

    earlier, later: [batch, N_res, 37, 3]; mask: [batch, N_res]. The largest of all samples.
    """
    atoms = [x[..., atom_order["CA"], :] for x in (earlier, later)]
    total = torch.zeros(len(mask), dtype=torch.float64, device=mask.device)
    for rows in plan.blocks("pair_heads", mask.shape[1]):
        before, after = (torch.cdist(x[:, rows], x) for x in atoms)
        weights = mask[:, rows, None] * mask[:, None, :]
        total += ((after - before).square() * weights).sum((1, 2)).double()
    return float((total / mask.sum(-1).double().square()).sqrt().max())


def _check_finite(name: str, values: Tensor) -> None:
    """Raise FloatingPointError if a value is not finite."""
    if not bool(torch.isfinite(values).all()):
        count = int((~torch.isfinite(values)).sum())
        raise FloatingPointError(
            f"{count} of {values.numel()} values of the predicted {name} are not finite; "
            "check the weights and the input features, or use --dtype fp32"
        )
