"""Attention of each residue pair over the templates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from openfold_opt.model.linear import JoinedLinears, Linear


@dataclass(frozen=True, kw_only=True)
class TemplatePointwiseAttentionConfig:
    """Configuration of TemplatePointwiseAttention."""

    category: ClassVar[str] = "mathematical"

    c_hidden: int = 16
    num_heads: int = 4
    mask_inf: float = 1e5
    """Subtracted from the attention logits of missing templates."""


class PointwiseAttention(nn.Module):
    """Pointwise attention with its projections.

    With only a few keys, elementwise products and sums are cheaper than matrix products.
    """

    def __init__(self, config: TemplatePointwiseAttentionConfig, *, c_t: int, c_z: int) -> None:
        super().__init__()
        self.config = config
        c_all_heads = config.c_hidden * config.num_heads
        self.linear_q = Linear(c_z, c_all_heads, bias=False, init="glorot")
        self.linear_k = Linear(c_t, c_all_heads, bias=False, init="glorot")
        self.linear_v = Linear(c_t, c_all_heads, bias=False, init="glorot")
        self.linear_o = Linear(c_all_heads, c_z, init="final")
        self._joined = JoinedLinears(self.linear_k, self.linear_v)

    def forward(self, t: Tensor, z: Tensor, template_mask: Tensor) -> Tensor:
        """Compute the attention; see TemplatePointwiseAttention."""
        config = self.config
        k, v = self.keys_and_values(t)
        # [batch, N_templ, N_res, N_res/dap, num_heads]
        logits = (self.queries(z)[:, None] * k).sum(-1)
        logits = logits + (config.mask_inf * (template_mask - 1.0))[:, :, None, None, None]
        weights = torch.softmax(logits, dim=1)
        output = (weights.unsqueeze(-1) * v).sum(1)
        return self.linear_o(output.flatten(-2))

    def queries(self, z: Tensor) -> Tensor:
        """Project z [.., c_z] to scaled queries [.., num_heads, c_hidden]."""
        config = self.config
        q = self.linear_q(z) * (1.0 / math.sqrt(config.c_hidden))
        return q.unflatten(-1, (config.num_heads, config.c_hidden))

    def keys_and_values(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Project t [.., c_t] to keys and values [.., num_heads, c_hidden] each."""
        heads = (self.config.num_heads, self.config.c_hidden)
        k, v = self._joined.project(t).chunk(2, dim=-1)
        return k.unflatten(-1, heads), v.unflatten(-1, heads)


class TemplatePointwiseAttention(nn.Module):
    """Algorithm 17 (TemplatePointwiseAttention)."""

    def __init__(self, config: TemplatePointwiseAttentionConfig, *, c_t: int, c_z: int) -> None:
        super().__init__()
        self.mha = PointwiseAttention(config, c_t=c_t, c_z=c_z)

    def forward(self, t: Tensor, z: Tensor, template_mask: Tensor) -> Tensor:
        """Compute the update of the pair representation; it is zero for samples without templates.

        Args:
            t: [batch, N_templ, N_res, N_res/dap, c_t]
            z: [batch, N_res, N_res/dap, c_z]
            template_mask: [batch, N_templ]

        Returns:
            [batch, N_res, N_res/dap, c_z]
        """
        has_template = (template_mask.sum(-1) > 0).to(z.dtype)
        return self.mha(t, z, template_mask) * has_template[:, None, None, None]
