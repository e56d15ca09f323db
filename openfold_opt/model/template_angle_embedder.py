"""Embedding of the template torsion angles as additional rows of the MSA."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import Linear

NUM_TEMPLATE_CLASSES = 22
TEMPLATE_ANGLE_CHANNELS = NUM_TEMPLATE_CLASSES + 14 + 14 + 7


class TemplateAngleEmbedder(nn.Module):
    """Algorithm 2, line 7."""

    def __init__(self, *, c_m: int) -> None:
        super().__init__()
        self.linear_1 = Linear(TEMPLATE_ANGLE_CHANNELS, c_m, init="relu")
        self.linear_2 = Linear(c_m, c_m, init="relu")

    def forward(self, aatype: Tensor, sin_cos: Tensor, alt_sin_cos: Tensor, mask: Tensor) -> Tensor:
        """Embed the torsion angles of all templates.

        Args:
            aatype: [batch, N_templ, N_res] int64
            sin_cos, alt_sin_cos: [batch, N_templ, N_res, 7, 2]
            mask: [batch, N_templ, N_res, 7]

        Returns:
            [batch, N_templ, N_res, c_m]
        """
        one_hot = F.one_hot(aatype, NUM_TEMPLATE_CLASSES).to(mask.dtype)
        features = torch.cat([one_hot, sin_cos.flatten(-2), alt_sin_cos.flatten(-2), mask], dim=-1)
        return self.linear_2(F.relu(self.linear_1(features)))
