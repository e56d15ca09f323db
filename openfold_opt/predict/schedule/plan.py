"""PredictionPlan: how a pass without gradient is executed in place and in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from openfold_opt.model.plan import ExecutionPlan

Step = Literal[
    "embed_msa",
    "embed_pairs",
    "pair_bias",
    "msa_row",
    "msa_column",
    "msa_transition",
    "extra_row",
    "extra_column",
    "extra_transition",
    "outer_side",
    "outer_product",
    "triangle_edges",
    "triangle_product",
    "triangle_attention",
    "pair_transition",
    "template_pairs",
    "template_attention",
    "point_attention",
    "pair_heads",
]
STEPS: tuple[Step, ...] = get_args(Step)
"""Steps whose work is divided into blocks. A block has the rows of a step: rows of the pair
representation or of the MSA, or columns where a step works along columns."""


@dataclass(frozen=True, kw_only=True)
class PredictionPlan(ExecutionPlan):
    """Execution options of a prediction (predict/schedule/blocks.py)."""

    block_rows: Mapping[Step, int] = field(default_factory=dict)
    """Largest number of rows of a block of each step; a step that is absent is not divided."""
    channel_groups: int = 2
    """Number of groups of channels in which a triangle multiplication is computed when the pairs
    are sharded. A rank holds 2 + 1 / channel_groups times its shard of the pairs."""
    offload_pairs: bool = False
    """Whether the pairs are kept on the host while the templates are processed."""
    skip_missing_templates: bool = True
    """Whether the host reads which templates exist, and skips the others. A CUDA graph processes
    all of them; those that do not exist change no result."""

    def __post_init__(self) -> None:
        unknown = set(self.block_rows) - set(STEPS)
        if unknown or any(rows < 1 for rows in self.block_rows.values()):
            raise ValueError(
                f"expected at least one row per block of the steps {', '.join(STEPS)}; "
                f"found {dict(self.block_rows)}"
            )
        if self.channel_groups < 1:
            raise ValueError(f"expected channel_groups >= 1, found {self.channel_groups}")

    def blocks(self, step: Step, length: int) -> list[slice]:
        """Divide `length` rows into the blocks of a step."""
        rows = min(self.block_rows.get(step, length), length)
        return [slice(start, min(start + rows, length)) for start in range(0, length, max(rows, 1))]
