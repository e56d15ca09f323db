"""Pictures of predicted chains. `draw_chain` writes the picture of a chain:

    from openfold_opt.predict.pictures import ChainPicture, draw_chain

`draw_superposition` compares a prediction with a true structure.
"""

from openfold_opt.predict.pictures.chain_picture import ChainPicture, draw_chain
from openfold_opt.predict.pictures.pae_image import downsample_pae
from openfold_opt.predict.pictures.superposition import draw_superposition

__all__ = ["ChainPicture", "downsample_pae", "draw_chain", "draw_superposition"]
