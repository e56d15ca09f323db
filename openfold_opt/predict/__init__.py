"""Structures of protein chains from trained weights.

The command is `python -m openfold_opt.predict`. In Python:

    from openfold_opt.predict import Predictor

    predictor = Predictor("params_model_1_ptm.npz")
    result = predictor.predict("MKTAYIAKQR...", alignments="alignments/query")
    print(result.best.plddt.mean(), result.best.ptm)
    result.write("predictions")

docs/predict.md describes inputs, outputs and several GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openfold_opt.predict.predictor import PredictedChain, Predictor, PredictorSettings

__all__ = ["PredictedChain", "Predictor", "PredictorSettings"]


def __getattr__(name: str) -> object:
    """Import a public name on its first use, so that `--help` does not load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from openfold_opt.predict import predictor

    return getattr(predictor, name)
