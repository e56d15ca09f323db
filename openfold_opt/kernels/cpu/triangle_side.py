"""Edges of one side of a triangle multiplication in tiles of rows, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.kernels.cpu.layer_norm import normalize
from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.tiles import Scratch, tiles
from openfold_opt.kernels.interface import LinearWeights, NormWeights


def triangle_side(
    z: Tensor, norm: NormWeights, projection: LinearWeights, mask: Tensor, *, out: Tensor
) -> Tensor:
    """Compute kernels.reference.triangle_side; its docstring has the shapes."""
    c, (weight, bias) = out.shape[1], projection
    edge_weight, gate_weight = weight.tensor_split((2 * c,))
    offsets, gate_bias = bias.tensor_split((2 * c,))
    rows, edges = z.flatten(1, 2).contiguous(), out.flatten(2)
    masks = mask.expand(z.shape[:3]).flatten(1).float().contiguous()
    output_gate = weight.new_empty(*rows.shape[:2], len(gate_weight))
    scratch = Scratch(weight)
    for sample in range(len(rows)):
        for tile in tiles(rows.shape[1], 2 * c * weight.element_size()):
            z_rows, gate_rows = rows[sample, tile], output_gate[sample, tile]
            x = scratch.take("x", *z_rows.shape, dtype=z.dtype)
            normalize(z_rows, (norm.weight, norm.bias), norm.eps, x)
            x = x.to(weight.dtype)
            joined = scratch.take("joined", 2 * c, len(x))
            torch.mm(edge_weight, x.t(), out=joined)
            value, gate = joined.chunk(2)
            edge = edges[sample, :, tile]
            call(
                *("gate_edges", value, gate, offsets, masks[sample, tile], edge),
                *(edge.stride(0), *value.shape),
            )
            if len(gate_weight):
                torch.mm(x, gate_weight.t(), out=gate_rows)
                call("add_to_rows", gate_rows, gate_bias, *gate_rows.shape)
    return output_gate.view(*z.shape[:3], len(gate_weight))
