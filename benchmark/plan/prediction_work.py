"""Matrix work of a prediction, counted from the sizes of the model, by powers of the length.

The cubic part is that of triangle multiplication and triangle attention. `perf` and the memory plan
count the same work operator by operator (openfold_opt.predict.forward_trace); tests compare both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfold_opt.model.config import ModelConfig
    from openfold_opt.model.evoformer_block import EvoformerStackConfig, ExtraMSAStackConfig

_C_TEMPLATE_ANGLES = 57
_PAIR_BLOCKS_OF_ALPHAFOLD3 = 48
_MSA_BLOCKS_OF_ALPHAFOLD3 = 4
_PASSES_OF_ALPHAFOLD3 = 11


@dataclass(frozen=True, kw_only=True)
class PredictionWork:
    """Floating-point operations of all passes."""

    linear: float = 0.0
    quadratic: float = 0.0
    cubic: float = 0.0

    @property
    def total(self) -> float:
        """All operations."""
        return self.linear + self.quadratic + self.cubic

    def __add__(self, other: PredictionWork) -> PredictionWork:
        return PredictionWork(
            linear=self.linear + other.linear,
            quadratic=self.quadratic + other.quadratic,
            cubic=self.cubic + other.cubic,
        )

    def __mul__(self, factor: float) -> PredictionWork:
        return PredictionWork(
            linear=factor * self.linear,
            quadratic=factor * self.quadratic,
            cubic=factor * self.cubic,
        )


@dataclass(frozen=True, kw_only=True)
class _PairBlock:
    """Widths of the pair part of a block."""

    c: int
    c_product: int
    """Channels of a triangle multiplication."""
    c_attention: int
    """Channels of all heads of a triangle attention."""
    num_heads: int
    transition_products: int
    """Widths of the layers of the transition, relative to c, summed over its products."""


def alphafold2_work(
    num_residues: int,
    *,
    config: ModelConfig,
    msa_rows: int = 512,
    extra_rows: int = 5120,
    num_templates: int = 4,
    num_passes: int = 4,
) -> PredictionWork:
    """Count an AlphaFold2 model. msa_rows includes the rows of the templates."""
    n, evoformer, extra = float(num_residues), config.evoformer_stack, config.extra_msa_stack
    pairs = _PairBlock(
        c=config.c_z,
        c_product=evoformer.c_hidden_triangle_multiplication,
        c_attention=evoformer.c_hidden_triangle_attention * evoformer.num_heads_triangle,
        num_heads=evoformer.num_heads_triangle,
        transition_products=2 * evoformer.transition_factor,
    )
    blocks = _stack_work(n, msa_rows, config.c_m, evoformer, pairs, is_global=False)
    extra_blocks = _stack_work(n, extra_rows, config.c_e, extra, pairs, is_global=True)
    structure = _structure_work(n, config) * config.structure_module.num_blocks
    templates = _template_work(n, config) * num_templates
    return (blocks + extra_blocks + structure + templates) * num_passes


def alphafold3_work(num_tokens: int, *, msa_rows: int = 1024) -> PredictionWork:
    """Count the pair representation of an AlphaFold3 model, without its diffusion.

    Its sizes are those of the paper: 48 Pairformer and 4 MSA blocks, 11 passes, c_z 128.
    """
    n = float(num_tokens)
    # The transition is gated: three products of four times the width.
    pairs = _PairBlock(c=128, c_product=128, c_attention=128, num_heads=4, transition_products=12)
    msa = PredictionWork(
        linear=2 * n * msa_rows * 64 * (2 * 64 + 3 * 4 * 64),
        quadratic=2 * n**2 * (msa_rows * (32 * 32 + 64) + 32 * 32 * 128),
    )
    single = PredictionWork(
        linear=2 * n * 384**2 * (5 + 12), quadratic=2 * n**2 * (2 * 384 + 128 * 16)
    )
    blocks = (_pair_work(n, pairs) + single) * _PAIR_BLOCKS_OF_ALPHAFOLD3
    blocks += (_pair_work(n, pairs) + msa) * _MSA_BLOCKS_OF_ALPHAFOLD3
    return blocks * _PASSES_OF_ALPHAFOLD3


def _stack_work(
    n: float,
    rows: int,
    c: int,
    stack: EvoformerStackConfig | ExtraMSAStackConfig,
    pairs: _PairBlock,
    *,
    is_global: bool,
) -> PredictionWork:
    """Count all blocks of a stack. n: residues; c: channels of the MSA."""
    c_heads = stack.c_hidden_msa_attention * stack.num_heads_msa
    outer_product = _outer_product_work(
        n,
        rows,
        c=c,
        c_hidden=stack.c_hidden_outer_product,
        c_z=pairs.c,
        num_heads=stack.num_heads_msa,
    )
    msa = _msa_work(n, rows, c=c, c_heads=c_heads, is_global=is_global)
    return (msa + outer_product + _pair_work(n, pairs)) * stack.num_blocks


def _msa_work(n: float, rows: int, *, c: int, c_heads: int, is_global: bool) -> PredictionWork:
    """Count row and column attention and the transition of an MSA. n: residues."""
    projections = 5 * c * c_heads
    # Global column attention has one query per column, and one head for keys and values.
    columns = 3 * c * c_heads if is_global else projections + 2 * rows * c_heads
    return PredictionWork(
        linear=2 * n * rows * (projections + columns + 2 * c * 4 * c),
        quadratic=2 * n**2 * rows * 2 * c_heads,
    )


def _outer_product_work(
    n: float, rows: int, *, c: int, c_hidden: int, c_z: int, num_heads: int
) -> PredictionWork:
    """Count the outer product mean and the pair bias of the row attention."""
    return PredictionWork(
        linear=2 * n * rows * 2 * c * c_hidden,
        quadratic=2 * n**2 * (rows * c_hidden**2 + c_hidden**2 * c_z + c_z * num_heads),
    )


def _pair_work(n: float, block: _PairBlock) -> PredictionWork:
    """Count two triangle multiplications, two triangle attentions and the transition."""
    c, product, heads = block.c, block.c_product, block.c_attention
    multiplication = 4 * c * product + product * c + c * c
    attention = 5 * c * heads + c * block.num_heads
    transition = block.transition_products * c * c
    return PredictionWork(
        quadratic=2 * n**2 * (2 * multiplication + 2 * attention + transition),
        cubic=2 * n**3 * (2 * product + 2 * 2 * heads),
    )


def _structure_work(n: float, config: ModelConfig) -> PredictionWork:
    """Count a block of the structure module."""
    module, c_s, c_z = config.structure_module, config.c_s, config.c_z
    heads, c_hidden = module.num_heads, module.c_hidden_point_attention
    query = heads * (c_hidden + 3 * module.num_qk_points)
    value = heads * (c_hidden + 3 * module.num_v_points)
    return PredictionWork(
        linear=2 * n * c_s * (2 * query + value + 3 * c_s + heads * c_z + value),
        quadratic=2 * n**2 * (query + value + heads * c_z + c_z * heads),
    )


def _template_work(n: float, config: ModelConfig) -> PredictionWork:
    """Count the pair stack and the embedding of one template."""
    if not config.has_templates:
        return PredictionWork()
    stack, c_t = config.template_pair_stack, config.c_t
    block = _PairBlock(
        c=c_t,
        c_product=stack.c_hidden_triangle_multiplication,
        c_attention=stack.c_hidden_triangle_attention * stack.num_heads_triangle,
        num_heads=stack.num_heads_triangle,
        transition_products=2 * stack.transition_factor,
    )
    attention = config.template_pointwise_attention
    c_heads = attention.c_hidden * attention.num_heads
    embedding = PredictionWork(
        linear=2 * n * (_C_TEMPLATE_ANGLES + config.c_m) * config.c_m,
        quadratic=2 * n**2 * (88 * c_t + 2 * c_t * c_heads + 2 * c_heads),
    )
    return _pair_work(n, block) * stack.num_blocks + embedding
