"""Published forms of AlphaFold2's weights: read any of them, and write three."""

from openfold_opt.model.published_weights.reading import (
    PublishedWeights,
    build_model,
    read_weights,
    read_weights_file,
)
from openfold_opt.model.published_weights.weight_settings import (
    Setting,
    describe_settings,
    with_options,
)
from openfold_opt.model.published_weights.writing import FORMATS, write_weights
from openfold_opt.model.weights import WeightsError

__all__ = [
    "FORMATS",
    "PublishedWeights",
    "Setting",
    "WeightsError",
    "build_model",
    "describe_settings",
    "read_weights",
    "read_weights_file",
    "with_options",
    "write_weights",
]
