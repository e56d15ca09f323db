"""Shapes of the operations that only a prediction uses."""

from __future__ import annotations

from openfold_opt.kernels.arguments import OperationShapes
from openfold_opt.kernels.reference.triangle_product import TriangleProductShapes
from openfold_opt.kernels.reference.triangle_side import TriangleSideShapes


def prediction_shapes(num_res: int, *, num_rows: int = 4) -> dict[str, OperationShapes]:
    """Return the shapes of a block of pair rows for each operation, by name.

    num_res: residues of the chain; num_rows: rows of the block.
    """
    pairs = {"batch": 1, "n_1": num_rows, "n_2": num_res, "c_z": 16}
    return {
        "triangle_side": TriangleSideShapes(**pairs, c=24, c_gate=16),
        "triangle_product": TriangleProductShapes(**pairs, c_hidden=24),
    }
