"""The model without memory: on PyTorch's device "meta", where tensors have shapes and no values."""

from __future__ import annotations

import torch

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.config import ModelConfig
from openfold_opt.train.precision import low_precision_names


def meta_model(config: ModelConfig, precision: str) -> AlphaFold:
    """The model with parameters of the dtypes that it computes with in a precision of RunConfig."""
    with torch.device("meta"):
        model = AlphaFold(config, seed=None)
    parameters = dict(model.named_parameters())
    for name in low_precision_names(model, precision):
        parameters[name].data = parameters[name].data.bfloat16()
    return model
