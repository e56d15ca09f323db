"""Operations of a training step with the shapes of their arguments.

The largest variants of each operation are listed, not every place that uses it. On several DAP
ranks the shapes are those of a rank without chunks, which are at least as large as those of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openfold_opt.kernels.arguments import OperationShapes
from openfold_opt.kernels.reference.backbone_update import BackboneUpdateShapes
from openfold_opt.kernels.reference.dropout_masks import DropoutMasksShapes
from openfold_opt.kernels.reference.dropout_residual import DropoutResidualShapes
from openfold_opt.kernels.reference.global_attention import GlobalAttentionShapes
from openfold_opt.kernels.reference.invariant_point_attention import InvariantPointAttentionShapes
from openfold_opt.kernels.reference.layer_norm import LayerNormShapes
from openfold_opt.kernels.reference.outer_product_mean import OuterProductMeanShapes
from openfold_opt.kernels.reference.projected_norm import ProjectedNormShapes
from openfold_opt.kernels.reference.residual_norm import ResidualNormShapes
from openfold_opt.kernels.reference.self_attention import SelfAttentionShapes
from openfold_opt.kernels.reference.transition import TransitionShapes
from openfold_opt.kernels.reference.triangle_edges import TriangleEdgesShapes
from openfold_opt.kernels.reference.triangle_update import TriangleUpdateShapes
from openfold_opt.kernels.reference.weight_update import WeightUpdateShapes
from openfold_opt.model.evoformer_block import EvoformerStackConfig
from openfold_opt.model.template_pair_stack import TemplatePairStackConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.precision import meta_model


@dataclass(frozen=True, kw_only=True)
class PlacedOperation:
    """An operation at one location in the model."""

    operation: str
    """Name in the table of operations."""
    where: str
    """Location in the model."""
    shapes: OperationShapes


def operations_of_step(config: RunConfig, *, dap_size: int = 1) -> list[PlacedOperation]:
    """Return the operations of a micro-batch and of the optimizer on one rank."""
    sizes = _Sizes.of(config, dap_size)
    operations: list[tuple[str, str, OperationShapes]] = [
        *_msa_operations(config, sizes),
        *_pair_operations(config, sizes),
    ]
    structure = config.model.structure_module
    parameters = meta_model(config.model, config.precision).parameters()
    num_parameters = sum(parameter.numel() for parameter in parameters)
    operations += [
        (
            "invariant_point_attention",
            "structure module",
            InvariantPointAttentionShapes(
                batch=sizes.batch,
                num_res=sizes.num_res,
                num_heads=structure.num_heads,
                c=structure.c_hidden_point_attention,
                num_qk_points=structure.num_qk_points,
                num_v_points=structure.num_v_points,
                c_z=config.model.c_z,
            ),
        ),
        (
            "backbone_update",
            "structure module",
            BackboneUpdateShapes(batch=sizes.batch, num_res=sizes.num_res),
        ),
        (
            "dropout_masks",
            "Evoformer",
            DropoutMasksShapes(
                num_sites=config.model.evoformer_stack.num_blocks,
                batch=sizes.batch,
                shape=(1, sizes.num_res, config.model.c_m),
            ),
        ),
        ("weight_update", "optimizer", WeightUpdateShapes(num_parameters=num_parameters)),
    ]
    return [
        PlacedOperation(operation=name, where=where, shapes=shapes)
        for name, where, shapes in operations
    ]


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Sizes of a micro-batch."""

    batch: int
    num_res: int
    num_seq: int
    """MSA clusters and template rows."""
    num_extra_seq: int
    num_templates: int
    dap: int

    @classmethod
    def of(cls, config: RunConfig, dap_size: int) -> _Sizes:
        data = config.data
        return cls(
            batch=config.local_batch_size,
            num_res=data.crop_size,
            num_seq=data.max_msa_clusters + data.max_templates,
            num_extra_seq=data.max_extra_msa,
            num_templates=data.max_templates,
            dap=dap_size,
        )

    def shard(self, size: int) -> int:
        """Return the size of a rank's shard of a dim."""
        return -(-size // self.dap)


_Named = tuple[str, str, OperationShapes]


def _msa_operations(config: RunConfig, sizes: _Sizes) -> Iterator[_Named]:
    model, batch, n = config.model, sizes.batch, sizes.num_res
    evoformer, extra = model.evoformer_stack, model.extra_msa_stack

    def attention(groups: int, length: int, *, is_extra: bool, has_bias: bool) -> OperationShapes:
        stack = extra if is_extra else evoformer
        return SelfAttentionShapes(
            batch=batch,
            groups=groups,
            length=length,
            c=model.c_e if is_extra else model.c_m,
            num_heads=stack.num_heads_msa,
            c_head=stack.c_hidden_msa_attention,
            has_bias=has_bias,
        )

    rows, columns = sizes.shard(sizes.num_seq), sizes.shard(n)
    row = attention(rows, n, is_extra=False, has_bias=True)
    yield "self_attention", "MSA row", row
    column = attention(columns, sizes.num_seq, is_extra=False, has_bias=False)
    yield "self_attention", "MSA column", column
    extra_row = attention(sizes.shard(sizes.num_extra_seq), n, is_extra=True, has_bias=True)
    yield "self_attention", "extra MSA row", extra_row
    global_attention = GlobalAttentionShapes(
        batch=batch,
        groups=columns,
        length=sizes.num_extra_seq,
        num_heads=extra.num_heads_msa,
        c_head=extra.c_hidden_msa_attention,
    )
    yield "global_attention", "extra MSA column", global_attention
    for where, stack, num_seq, c in (
        ("MSA", evoformer, sizes.num_seq, model.c_m),
        ("extra MSA", extra, sizes.num_extra_seq, model.c_e),
    ):
        msa = (batch, num_seq, columns)
        yield "residual_norm", where, ResidualNormShapes(leading=msa, c=c)
        transition = TransitionShapes(leading=msa, c=c, factor=stack.transition_factor)
        yield "transition", where, transition
        outer_product_mean = OuterProductMeanShapes(
            batch=batch,
            num_seq=num_seq,
            n_i=columns,
            n_j=n,
            c_hidden=stack.c_hidden_outer_product,
            c_z=model.c_z,
        )
        yield "outer_product_mean", where, outer_product_mean


def _pair_operations(config: RunConfig, sizes: _Sizes) -> Iterator[_Named]:
    model, n, rows = config.model, sizes.num_res, sizes.shard(sizes.num_res)
    evoformer, c_z = model.evoformer_stack, model.c_z
    pair = (sizes.batch, rows, n)
    yield from _triangle_operations("triangle", evoformer, sizes, batch=sizes.batch, c=c_z)
    yield "layer_norm", "pair", LayerNormShapes(leading=pair, c=c_z)
    transition = TransitionShapes(leading=pair, c=c_z, factor=evoformer.transition_factor)
    yield "transition", "pair", transition
    pair_bias = ProjectedNormShapes(leading=pair, c=c_z, c_out=evoformer.num_heads_msa)
    yield "projected_norm", "pair bias", pair_bias
    residual = DropoutResidualShapes(batch=sizes.batch, n_1=rows, n_2=n, c=c_z)
    yield "dropout_residual", "pair", residual
    if sizes.num_templates:
        batch = sizes.batch * sizes.num_templates
        stack = model.template_pair_stack
        yield from _triangle_operations("template triangle", stack, sizes, batch=batch, c=model.c_t)


def _triangle_operations(
    where: str,
    stack: EvoformerStackConfig | TemplatePairStackConfig,
    sizes: _Sizes,
    *,
    batch: int,
    c: int,
) -> Iterator[_Named]:
    n, rows = sizes.num_res, sizes.shard(sizes.num_res)
    c_hidden = stack.c_hidden_triangle_multiplication
    attention = SelfAttentionShapes(
        batch=batch,
        groups=rows,
        length=n,
        c=c,
        num_heads=stack.num_heads_triangle,
        c_head=stack.c_hidden_triangle_attention,
        has_bias=True,
    )
    yield "self_attention", where, attention
    edges = TriangleEdgesShapes(batch=batch, n_1=rows, n_2=n, c_z=c, c_hidden=c_hidden)
    yield "triangle_edges", where, edges
    update = TriangleUpdateShapes(
        batch=batch, n_i=rows, n_j=n, n_k=n, c_z=c, c_hidden=c_hidden, is_outgoing=True
    )
    yield "triangle_update", where, update
