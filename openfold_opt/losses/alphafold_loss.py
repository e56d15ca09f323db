"""The loss of AlphaFold2: the weighted sum of its terms (AF2 suppl. 1.9, eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from openfold_opt.losses.config import LossConfig
from openfold_opt.losses.distogram import distogram_loss
from openfold_opt.losses.experimentally_resolved import experimentally_resolved_loss
from openfold_opt.losses.fape import fape_loss
from openfold_opt.losses.masked_msa import masked_msa_loss
from openfold_opt.losses.plddt import plddt_loss
from openfold_opt.losses.renaming import rename_ground_truth
from openfold_opt.losses.supervised_chi import supervised_chi_loss
from openfold_opt.losses.tm import tm_loss
from openfold_opt.losses.violation import violation_loss
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs


@dataclass(frozen=True, kw_only=True, eq=False)
class LossTerms:
    """The loss of a batch. All tensors are float32 [batch] except `loss`."""

    terms: dict[str, Tensor]
    """Unweighted terms by name. Terms of weight zero have no gradient."""
    weighted_total: Tensor
    """Weighted sum of the terms whose weight is not zero."""
    scaled_total: Tensor
    """weighted_total * sqrt(residues of the sample after cropping)."""
    loss: Tensor
    """[]: mean of scaled_total over the batch. This is the training objective."""


class AlphaFoldLoss:
    """Weighted sum of all terms, scaled by the length of the sample."""

    def __init__(self, config: LossConfig) -> None:
        self.config = config

    def __call__(self, outputs: ModelOutputs, batch: FeatureBatch) -> LossTerms:
        """Compute the loss of the last pass, the only one with gradient.

        Args:
            outputs: Outputs of that pass. They are converted to float32.
            batch: Features of that pass (FeatureBatch.at_pass) on the same device.

        Raises:
            ValueError: The TM loss has a nonzero weight, but the model has no TM-score head.
        """
        terms = self._terms(_in_float32(outputs), batch)
        weights = self._weights()
        weighted_total = sum(
            weights[name] * term for name, term in terms.items() if weights[name] != 0.0
        )
        # AF2 suppl. 1.11.8: a sample is weighted by the square root of its length.
        length = batch.seq_length.clamp(max=batch.aatype.shape[-1]).to(torch.float32)
        scaled_total = length.sqrt() * weighted_total
        terms = {
            name: term if weights[name] != 0.0 else term.detach() for name, term in terms.items()
        }
        return LossTerms(
            terms=terms,
            weighted_total=weighted_total,
            scaled_total=scaled_total,
            loss=scaled_total.mean(),
        )

    def _terms(self, outputs: ModelOutputs, batch: FeatureBatch) -> dict[str, Tensor]:
        config = self.config
        truth = rename_ground_truth(outputs.sm_positions[:, -1].detach(), batch)
        terms = {
            "fape": fape_loss(outputs, batch, truth, config.fape),
            "supervised_chi": supervised_chi_loss(outputs, batch, config.supervised_chi),
            "distogram": distogram_loss(outputs, batch, config.distogram),
            "masked_msa": masked_msa_loss(outputs, batch, config.masked_msa),
            "plddt_loss": plddt_loss(outputs, batch, config.plddt),
            "experimentally_resolved": experimentally_resolved_loss(
                outputs, batch, config.experimentally_resolved
            ),
        }
        if config.violation.weight != 0.0 or config.report_zero_weight_violation:
            terms["violation"] = violation_loss(outputs, batch, config.violation)
        if outputs.tm_logits is not None:
            terms["tm"] = tm_loss(outputs, batch, config.tm)
        elif config.tm.weight != 0.0:
            raise ValueError(
                f"the TM loss has weight {config.tm.weight} but the model has no TM-score head; "
                "enable the head in the model configuration, or set the weight to 0"
            )
        return terms

    def _weights(self) -> dict[str, float]:
        config = self.config
        return {
            "fape": config.fape.weight,
            "supervised_chi": config.supervised_chi.weight,
            "distogram": config.distogram.weight,
            "masked_msa": config.masked_msa.weight,
            "plddt_loss": config.plddt.weight,
            "experimentally_resolved": config.experimentally_resolved.weight,
            "violation": config.violation.weight,
            "tm": config.tm.weight,
        }


def _in_float32(outputs: ModelOutputs) -> ModelOutputs:
    values = {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return ModelOutputs(
        **{name: None if value is None else value.float() for name, value in values.items()}
    )
