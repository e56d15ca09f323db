"""Operations of the model, with random inputs in the shapes of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.interface import InvariantPointInputs, LinearWeights, NormWeights
from openfold_opt.train.config import RunConfig

Call = Callable[..., Tensor | tuple[Tensor, ...]]
_HALF = torch.bfloat16
EPS = 1e-5
"""Added to the variances of normalizations."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelCase:
    """An operation and its inputs."""

    operation: str
    """Field of KernelSet."""
    where: str
    """Location in the model."""
    leaves: tuple[Tensor, ...]
    """Inputs that require gradients: leaves of the autograd graph."""
    call: Callable[[Call], Call]
    """call(operation) is a function of the leaves; it passes the other inputs."""
    attention: AttentionSizes | None = None
    """Sizes for the attention of other libraries; None if they have no such operation."""


@dataclass(frozen=True, kw_only=True)
class AttentionSizes:
    """Sizes of an attention, for other libraries."""

    batch: int
    groups: int
    """Rows, columns or residues, in each of which elements attend to each other."""
    length: int
    num_heads: int
    c_head: int
    has_bias: bool


class CaseMaker:
    """Makes cases with random tensors on a device.

    With precision "bf16", inputs are bfloat16 except those that the model keeps in float32.
    """

    def __init__(self, config: RunConfig, *, device: torch.device, precision: str) -> None:
        self._config = config
        self._device = device
        self._low = _HALF if precision == "bf16" else torch.float32
        # Device meta has no generators; one of the CPU is accepted there.
        generator_device = "cpu" if device.type == "meta" else device
        self._generator = torch.Generator(device=generator_device).manual_seed(0)

    def cases(self) -> Iterator[KernelCase]:
        """Yield the cases one at a time, because some take gigabytes."""
        yield from self._attentions()
        yield from self._triangles()
        yield from self._others()

    def _leaf(self, *shape: int, low: bool = True, scale: float = 1.0) -> Tensor:
        """Return a random input; low=False: float32 in every precision."""
        x = torch.randn(*shape, generator=self._generator, device=self._device) * scale
        return x.to(self._low if low else torch.float32).requires_grad_()

    def _weight(self, *shape: int) -> Tensor:
        return self._leaf(*shape, scale=shape[-1] ** -0.5)

    def _attentions(self) -> Iterator[KernelCase]:
        model, data = self._config.model, self._config.data
        evoformer, extra, template = (
            model.evoformer_stack,
            model.extra_msa_stack,
            model.template_pair_stack,
        )
        n, rows = data.crop_size, data.max_msa_clusters + data.max_templates
        batch = self._config.local_batch_size
        heads, c = evoformer.num_heads_msa, evoformer.c_hidden_msa_attention
        yield self._attention(
            "MSA row", model.c_m, _sizes(batch, rows, n, (heads, c), has_bias=True)
        )
        yield self._attention(
            "MSA column", model.c_m, _sizes(batch, n, rows, (heads, c), has_bias=False)
        )
        heads, c = extra.num_heads_msa, extra.c_hidden_msa_attention
        yield self._attention(
            "extra MSA row",
            model.c_e,
            _sizes(batch, data.max_extra_msa, n, (heads, c), has_bias=True),
        )
        heads, c = evoformer.num_heads_triangle, evoformer.c_hidden_triangle_attention
        yield self._attention("triangle", model.c_z, _sizes(batch, n, n, (heads, c), has_bias=True))
        if data.max_templates:
            heads, c = template.num_heads_triangle, template.c_hidden_triangle_attention
            yield self._attention(
                "template triangle",
                model.c_t,
                _sizes(batch * data.max_templates, n, n, (heads, c), has_bias=True),
            )

    def _attention(self, where: str, c_in: int, sizes: AttentionSizes) -> KernelCase:
        inner = sizes.num_heads * sizes.c_head
        mask = torch.ones(sizes.batch, sizes.groups, sizes.length, device=self._device)
        leaves = [
            self._leaf(sizes.batch, sizes.groups, sizes.length, c_in),
            self._weight(4 * inner, c_in),
            self._leaf(4 * inner),
        ]
        leaves += [self._weight(c_in, inner), self._leaf(c_in)]
        leaves += (
            [self._leaf(sizes.batch, sizes.num_heads, sizes.length, sizes.length)]
            if sizes.has_bias
            else []
        )

        def call(operation: Call) -> Call:
            def run(x: Tensor, *weights: Tensor):
                bias = (lambda: weights[4]) if sizes.has_bias else None
                return operation(
                    x,
                    LinearWeights(*weights[:2]),
                    LinearWeights(*weights[2:4]),
                    num_heads=sizes.num_heads,
                    mask=mask,
                    mask_inf=1e9,
                    bias=bias,
                )

            return run

        return KernelCase(
            operation="self_attention",
            where=where,
            leaves=tuple(leaves),
            call=call,
            attention=sizes,
        )

    def _triangles(self) -> Iterator[KernelCase]:
        model, n, batch = (
            self._config.model,
            self._config.data.crop_size,
            self._config.local_batch_size,
        )
        c_z, c = model.c_z, model.evoformer_stack.c_hidden_triangle_multiplication
        # The projection yields values and gates of the edges a and b, and the gate of the output.
        mask, width = torch.ones(batch, n, n, device=self._device), 4 * c + c_z
        norm = [self._leaf(c_z, low=False), self._leaf(c_z, low=False)]

        def edges(operation: Call) -> Call:
            return lambda z, gamma, beta, weight, bias: operation(
                z, NormWeights(gamma, beta, EPS), LinearWeights(weight, bias), mask, c_hidden=c
            )

        leaves = (self._leaf(batch, n, n, c_z), *norm, self._weight(width, c_z), self._leaf(width))
        yield KernelCase(operation="triangle_edges", where="triangle", leaves=leaves, call=edges)

        dropout = (
            torch.rand(batch, 1, n, c_z, generator=self._generator, device=self._device) > 0.25
        ).float() / 0.75

        def update(operation: Call) -> Call:
            return lambda z, *rest: operation(
                z,
                rest[:3],
                NormWeights(*rest[3:5], EPS),
                LinearWeights(*rest[5:]),
                dropout,
                is_outgoing=True,
            )

        pair, edge = (batch, n, n, c_z), (batch, c, n, n)
        norm = [self._leaf(c, low=False), self._leaf(c, low=False)]
        leaves = (
            self._leaf(*pair),
            self._leaf(*edge),
            self._leaf(*edge),
            self._leaf(*pair),
            *norm,
            self._weight(c_z, c),
            self._leaf(c_z),
        )
        yield KernelCase(operation="triangle_update", where="triangle", leaves=leaves, call=update)

        def residual(operation: Call) -> Call:
            return lambda z, x: operation(z, x, dropout)

        yield KernelCase(
            operation="dropout_residual",
            where="pair",
            leaves=(self._leaf(*pair), self._leaf(*pair)),
            call=residual,
        )

    def _others(self) -> Iterator[KernelCase]:
        model, data, batch = self._config.model, self._config.data, self._config.local_batch_size
        n, rows = data.crop_size, data.max_msa_clusters + data.max_templates
        for where, shape in (
            ("MSA", (batch, rows, n, model.c_m)),
            ("pair", (batch, n, n, model.c_z)),
        ):
            yield self._layer_norm(where, shape)
            yield self._transition(where, shape, model.evoformer_stack.transition_factor)
        yield self._projected_norm(
            "pair bias", (batch, n, n, model.c_z), model.evoformer_stack.num_heads_msa
        )
        yield self._outer_product_mean(rows, n)
        yield self._global_attention(n, data.max_extra_msa)
        yield self._point_attention(n)

    def _layer_norm(self, where: str, shape: tuple[int, ...]) -> KernelCase:
        leaves = (
            self._leaf(*shape),
            self._leaf(shape[-1], low=False),
            self._leaf(shape[-1], low=False),
        )

        def call(operation: Call) -> Call:
            return lambda x, weight, bias: operation(x, weight, bias, eps=EPS)

        return KernelCase(operation="layer_norm", where=where, leaves=leaves, call=call)

    def _projected_norm(self, where: str, shape: tuple[int, ...], c_out: int) -> KernelCase:
        leaves = (
            self._leaf(*shape),
            self._leaf(shape[-1], low=False),
            self._leaf(shape[-1], low=False),
            self._weight(c_out, shape[-1]),
        )

        def call(operation: Call) -> Call:
            return lambda x, gamma, beta, weight: operation(
                x, NormWeights(gamma, beta, EPS), LinearWeights(weight, None)
            )

        return KernelCase(operation="projected_norm", where=where, leaves=leaves, call=call)

    def _transition(self, where: str, shape: tuple[int, ...], factor: int) -> KernelCase:
        c, wide = shape[-1], factor * shape[-1]
        norm = [self._leaf(c, low=False), self._leaf(c, low=False)]
        leaves = (
            self._leaf(*shape),
            *norm,
            self._weight(wide, c),
            self._leaf(wide),
            self._weight(c, wide),
            self._leaf(c),
        )

        def call(operation: Call) -> Call:
            return lambda x, *rest: operation(
                x, NormWeights(*rest[:2], EPS), LinearWeights(*rest[2:4]), LinearWeights(*rest[4:])
            )

        return KernelCase(operation="transition", where=where, leaves=leaves, call=call)

    def _outer_product_mean(self, rows: int, n: int) -> KernelCase:
        model, batch = self._config.model, self._config.local_batch_size
        c = model.evoformer_stack.c_hidden_outer_product
        norm = torch.full((batch, n, n, 1), float(rows), device=self._device)
        sides = [self._leaf(batch, rows, n, c), self._leaf(batch, rows, n, c)]
        leaves = (
            self._leaf(batch, n, n, model.c_z),
            *sides,
            self._weight(model.c_z, c * c),
            self._leaf(model.c_z),
        )

        def call(operation: Call) -> Call:
            return lambda z, a, b, weight, bias: operation(
                z, (a, b), LinearWeights(weight, bias), norm
            )

        return KernelCase(operation="outer_product_mean", where="MSA", leaves=leaves, call=call)

    def _global_attention(self, n: int, rows: int) -> KernelCase:
        extra, batch = self._config.model.extra_msa_stack, self._config.local_batch_size
        heads, c = extra.num_heads_msa, extra.c_hidden_msa_attention
        mask = torch.ones(batch, n, rows, device=self._device)

        def call(operation: Call) -> Call:
            return lambda q, projected: operation(
                q, projected, num_heads=heads, mask=mask, mask_inf=1e9
            )

        # The heads share k and v [.., c]; q and the gate are [.., heads * c].
        leaves = self._leaf(batch, n, heads * c), self._leaf(batch, n, rows, 2 * c + heads * c)
        return KernelCase(
            operation="global_attention", where="extra MSA column", leaves=leaves, call=call
        )

    def _point_attention(self, n: int) -> KernelCase:
        config, batch = self._config.model.structure_module, self._config.local_batch_size
        heads, c = config.num_heads, config.c_hidden_point_attention
        mask = torch.ones(batch, n, device=self._device)
        names = ("q", "k", "v", "q_points", "k_points", "v_points", "bias", "z", "point_weights")
        shapes = (
            [(heads, c)] * 3
            + [(heads, config.num_qk_points, 3)] * 2
            + [(heads, config.num_v_points, 3)]
        )
        leaves = [self._leaf(batch, n, *shape, low=False) for shape in shapes]
        leaves += [
            self._leaf(batch, n, n, heads, low=False),
            self._leaf(batch, n, n, self._config.model.c_z, low=False),
        ]
        leaves += [torch.ones(heads, device=self._device, requires_grad=True)]

        def call(operation: Call) -> Call:
            return lambda *leaves: operation(
                InvariantPointInputs(**dict(zip(names, leaves, strict=True))),
                mask=mask,
                mask_inf=1e5,
            )

        return KernelCase(
            operation="invariant_point_attention",
            where="structure module",
            leaves=tuple(leaves),
            call=call,
        )


def _sizes(
    batch: int, groups: int, length: int, heads: tuple[int, int], *, has_bias: bool
) -> AttentionSizes:
    return AttentionSizes(
        batch=batch,
        groups=groups,
        length=length,
        num_heads=heads[0],
        c_head=heads[1],
        has_bias=has_bias,
    )
