"""Update of a triangle multiplication from its product in tiles of rows, in place."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.tiles import Scratch, tiles
from openfold_opt.kernels.interface import LinearWeights, NormWeights


def triangle_product(
    z: Tensor, product: Tensor, gate: Tensor, norm: NormWeights, output: LinearWeights
) -> Tensor:
    """Compute kernels.reference.triangle_product; its docstring has the shapes."""
    weight, bias = output
    scratch, gate = Scratch(weight), gate.contiguous()
    num_columns, row_bytes = product.shape[3], max(weight.shape) * weight.element_size()
    for sample in range(len(z)):
        columns = product[sample].flatten(1)
        for tile in tiles(product.shape[2], num_columns * row_bytes):
            part = columns[:, tile.start * num_columns : tile.stop * num_columns]
            x = scratch.take("x", *part.shape)
            statistics = scratch.take("statistics", 2, part.shape[1], dtype=torch.float32)
            call(
                *("norm_columns", part, norm.weight, norm.bias, x, statistics),
                *(norm.eps, part.stride(0), *part.shape),
            )
            update = scratch.take("update", part.shape[1], len(weight))
            torch.mm(x.t(), weight.t(), out=update)
            call("add_gated", update, bias, gate[sample, tile], z[sample, tile], *update.shape)
    return z
