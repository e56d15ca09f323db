"""Auxiliary heads: lDDT, distogram, masked MSA, experimentally resolved atoms and TM score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.protein.residue_constants import atom_type_num

NUM_MASKED_MSA_CLASSES = 23


@dataclass(frozen=True, kw_only=True)
class AuxiliaryHeadsConfig:
    """Configuration of AuxiliaryHeads."""

    category: ClassVar[str] = "mathematical"

    c_hidden_lddt: int = 128
    num_bins_lddt: int = 50
    num_bins_distogram: int = 64
    has_tm_score: bool = False
    """Whether the model has a TM-score head (fine-tuning with pTM)."""
    num_bins_aligned_error: int = 64
    max_bin_aligned_error_angstrom: float = 31.0
    """Last bin edge of the aligned error; the first edge is 0."""


class PerResidueLDDTCaPredictor(nn.Module):
    """Algorithm 29 (predictPerResidueLDDT_Ca)."""

    def __init__(self, config: AuxiliaryHeadsConfig, *, c_s: int) -> None:
        super().__init__()
        c_hidden = config.c_hidden_lddt
        self.layer_norm = LayerNorm(c_s)
        self.linear_1 = Linear(c_s, c_hidden, init="relu")
        self.linear_2 = Linear(c_hidden, c_hidden, init="relu")
        self.linear_3 = Linear(c_hidden, config.num_bins_lddt, init="final")

    def forward(self, s: Tensor, plan: ExecutionPlan) -> Tensor:
        """Map s [batch, N_res, c_s] to logits [batch, N_res, num_bins]."""
        return self.linear_3(F.relu(self.linear_2(F.relu(self.linear_1(self.layer_norm(s, plan))))))


class LinearHead(nn.Module):
    """A head of one linear layer: masked MSA (supplement 1.9.9), resolved atoms (1.9.10), TM score
    (1.9.7)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.linear = Linear(c_in, c_out, init="final")

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., c_in] to logits [..., c_out]."""
        return self.linear(x)


class DistogramHead(LinearHead):
    """Distogram head (supplement 1.9.8); its logits are symmetric in the two residues."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x [batch, N_res, N_res, c_z] to logits [batch, N_res, N_res, num_bins]."""
        logits = self.linear(x)
        return logits + logits.transpose(1, 2)


class AuxiliaryHeads(nn.Module):
    """All auxiliary heads; their outputs are fields of ModelOutputs."""

    def __init__(self, config: AuxiliaryHeadsConfig, *, c_m: int, c_z: int, c_s: int) -> None:
        super().__init__()
        self.config = config
        self.plddt = PerResidueLDDTCaPredictor(config, c_s=c_s)
        self.distogram = DistogramHead(c_z, config.num_bins_distogram)
        self.masked_msa = LinearHead(c_m, NUM_MASKED_MSA_CLASSES)
        self.experimentally_resolved = LinearHead(c_s, atom_type_num)
        if config.has_tm_score:
            self.tm = LinearHead(c_z, config.num_bins_aligned_error)

    def forward(
        self,
        representations: tuple[Tensor, Tensor, Tensor],
        sm_single: Tensor,
        seq_mask: Tensor,
        plan: ExecutionPlan,
    ) -> dict[str, Tensor]:
        """Run all heads.

        Args:
            representations: msa [batch, N_clust, N_res, c_m], pair [batch, N_res, N_res, c_z] and
                single [batch, N_res, c_s].
            sm_single: [batch, N_res, c_s], the last state of the structure module.
            seq_mask: [batch, N_res], 0 at padding, which the TM score does not count.
            plan: kernels.

        Returns:
            Fields of ModelOutputs by name.
        """
        msa, pair, single = representations
        # Each head is compiled separately, so that a head without a loss gets no gradient. The
        # heads of one linear layer have nothing to compile.
        lddt_logits, plddt = plan.compiled("heads", self._predict_lddt)(sm_single, plan)
        outputs = {
            "lddt_logits": lddt_logits,
            "plddt": plddt,
            "distogram_logits": plan.compiled("heads", self.distogram.forward)(pair),
            "masked_msa_logits": self.masked_msa(msa),
            "experimentally_resolved_logits": self.experimentally_resolved(single),
        }
        if self.config.has_tm_score:
            outputs.update(plan.compiled("heads", self._predict_errors)(pair, seq_mask))
        return outputs

    def _predict_lddt(self, sm_single: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Return the logits of the lDDT, and its expectation."""
        logits = self.plddt(sm_single, plan)
        return logits, predicted_lddt(logits)

    def _predict_errors(self, pair: Tensor, seq_mask: Tensor) -> dict[str, Tensor]:
        max_bin = self.config.max_bin_aligned_error_angstrom
        return _predicted_errors(self.tm(pair), seq_mask, max_bin)


def predicted_lddt(logits: Tensor) -> Tensor:
    """Compute the expected lDDT-Ca, 0..100: [batch, N_res, num_bins] -> [batch, N_res]."""
    num_bins = logits.shape[-1]
    centers = (torch.arange(num_bins, dtype=logits.dtype, device=logits.device) + 0.5) * (
        100.0 / num_bins
    )
    return (torch.softmax(logits.detach(), dim=-1) * centers).sum(-1)


def _predicted_errors(logits: Tensor, seq_mask: Tensor, max_bin: float) -> dict[str, Tensor]:
    """Compute the expected aligned error and the TM score (supplement 1.9.7).

    Args:
        logits: [batch, N_res, N_res, num_bins]
        seq_mask: [batch, N_res], 0 at padding.
        max_bin: last bin edge, angstrom.

    Returns:
        Fields of ModelOutputs by name.
    """
    centers = aligned_error_centers(logits, max_bin)
    probabilities = torch.softmax(logits.detach(), dim=-1)
    return {
        "tm_logits": logits,
        "predicted_tm_score": predicted_tm_score(probabilities, seq_mask, max_bin),
        "aligned_confidence_probs": probabilities,
        "predicted_aligned_error": (probabilities * centers).sum(-1),
        "max_predicted_aligned_error": centers[-1],
    }


def aligned_error_centers(logits: Tensor, max_bin: float) -> Tensor:
    """Return the centers of the bins of the aligned error, angstrom: [num_bins].

    The last bin has no upper edge; its center is half a bin width above its lower edge, max_bin.
    """
    num_bins = logits.shape[-1]
    width = max_bin / (num_bins - 2)
    return (torch.arange(num_bins, dtype=logits.dtype, device=logits.device) + 0.5) * width


def predicted_tm_score(probabilities: Tensor, residue_mask: Tensor, max_bin: float) -> Tensor:
    """Compute the TM score (supplement 1.9.7) over the residues of a mask.

    With a mask of ones, padding counts, too; this is the score that the benchmark's reference
    computes.

    Args:
        probabilities: [batch, N_res, N_res, num_bins] of the aligned error.
        residue_mask: [batch, N_res], 1 at the residues that count.
        max_bin: last bin edge, angstrom.

    Returns:
        [batch]
    """
    scores = aligned_tm_scores(probabilities, residue_mask, max_bin)
    return largest_tm_score(scores, residue_mask)


def aligned_tm_scores(probabilities: Tensor, residue_mask: Tensor, max_bin: float) -> Tensor:
    """Compute the TM score after alignment on each of some residues.

    Args:
        probabilities: [batch, n, N_res, num_bins]
        residue_mask: [batch, N_res], 1 at the residues that count.
        max_bin: last bin edge, angstrom.

    Returns:
        [batch, n]
    """
    num_residues = residue_mask.sum(-1, dtype=torch.float64)
    scale = (1.24 * (num_residues.clamp(min=19) - 15) ** (1.0 / 3) - 1.8).to(probabilities.dtype)
    centers = aligned_error_centers(probabilities, max_bin)
    divisors = 1.0 + (centers / scale[:, None]).square()
    tm_terms = (probabilities / divisors[:, None, None, :]).sum(-1)
    # Padding has scores that are not finite if its logits are not, so it is selected, not scaled.
    sums = tm_terms.masked_fill(~residue_mask.bool()[:, None, :], 0.0).sum(-1)
    return sums / num_residues[:, None].to(sums.dtype)


def largest_tm_score(scores: Tensor, residue_mask: Tensor) -> Tensor:
    """Return the TM score [batch] from scores after alignment on each residue [batch, N_res]."""
    return scores.masked_fill(~residue_mask.bool(), 0.0).amax(-1)
