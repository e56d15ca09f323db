"""The picture of a finished chain. A chain whose picture cannot be drawn keeps its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from openfold_opt.predict.output_files import is_full_disk

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from openfold_opt.predict.chain_structure import ChainStructure


def write_picture(
    path: Path,
    structure: ChainStructure,
    *,
    ptm: float | None,
    pae: np.ndarray | None,
    max_pae: float | None,
    alignment_depth: Sequence[int],
    num_alignment_rows: int,
) -> list[str]:
    """Write the picture of a predicted chain, and return a warning if it cannot be drawn.

    Args:
        path: the file (.png).
        structure: the prediction.
        ptm: None if the weights do not predict it.
        pae: [N_res, N_res], angstrom; None if there is no file of it.
        max_pae: upper end of its scale, angstrom; None if the weights do not predict it.
        alignment_depth: [N_res], rows without a gap.
        num_alignment_rows: rows of the alignment.

    Raises:
        OSError: the disk is full.
    """
    try:
        # Matplotlib takes a second to import, which runs without pictures do not need.
        from openfold_opt.predict.pictures import ChainPicture, draw_chain

        picture = ChainPicture(
            structure=structure,
            ptm=ptm,
            pae=pae,
            max_pae=max_pae,
            alignment_depth=alignment_depth,
            num_alignment_rows=num_alignment_rows,
        )
        draw_chain(path, picture)
    except Exception as error:
        if is_full_disk(error):
            raise
        return [f"the picture was not drawn ({type(error).__name__}: {error})"]
    return []
