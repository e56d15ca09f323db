"""The picture of a chain. A chain whose picture cannot be drawn keeps its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openfold_opt.predict.file_names import PAE, PICTURE
from openfold_opt.predict.row_files import naming_file

if TYPE_CHECKING:
    from openfold_opt.predict.chain_results import ChainResult
    from openfold_opt.predict.output_files import ChainFiles


def write_picture(files: ChainFiles, result: ChainResult) -> list[str]:
    """Write the picture of a chain, and return a warning if it cannot be drawn.

    Args:
        files: of the chain, after write_result.
        result: of the set of weights that is drawn.

    Raises:
        OSError: the disk is full.
    """
    weights = result.facts.weights
    try:
        # Matplotlib takes a second to import, which runs without pictures do not need.
        from openfold_opt.predict.pictures.chain_picture import ChainPicture, chain_png

        png = chain_png(
            ChainPicture(
                structure=result.structure,
                ptm=result.facts.ptm,
                pae=files.matrix(weights, PAE),
                max_pae=result.max_pae,
                alignment_depth=result.alignment_depth,
                num_alignment_rows=result.facts.num_alignment_rows,
            )
        )
    except Exception as error:
        return [f"the picture was not drawn ({type(error).__name__}: {error})"]
    path = files.path(weights, PICTURE)
    with naming_file(path):
        path.write_bytes(png)
    return []
