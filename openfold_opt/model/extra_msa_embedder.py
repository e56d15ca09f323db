"""Embedding of the extra MSA."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import Linear

NUM_MSA_CLASSES = 23
EXTRA_MSA_FEAT_CHANNELS = NUM_MSA_CLASSES + 2


class ExtraMSAEmbedder(nn.Module):
    """Algorithm 2, line 15."""

    def __init__(self, *, c_e: int) -> None:
        super().__init__()
        self.linear = Linear(EXTRA_MSA_FEAT_CHANNELS, c_e)

    def forward(self, extra_msa: Tensor, has_deletion: Tensor, deletion_value: Tensor) -> Tensor:
        """Embed the extra MSA.

        Args:
            extra_msa: [batch, N_extra, N_res] int64
            has_deletion, deletion_value: [batch, N_extra, N_res]

        Returns:
            [batch, N_extra, N_res, c_e]
        """
        one_hot = F.one_hot(extra_msa, NUM_MSA_CLASSES).to(deletion_value.dtype)
        features = torch.cat(
            [one_hot, has_deletion.unsqueeze(-1), deletion_value.unsqueeze(-1)], dim=-1
        )
        return self.linear(features)
