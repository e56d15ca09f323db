"""Write weights in the forms of AlphaFold and OpenFold, and as safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO

import numpy as np
import torch
from torch import Tensor

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.alphafold_arrays import to_arrays
from openfold_opt.model.published_weights.model_sizes import model_config_as_json
from openfold_opt.model.published_weights.openfold_names import openfold_name
from openfold_opt.model.published_weights.safetensors_file import (
    MODEL_CONFIG_KEY,
    safetensors_bytes,
)

Writer = Callable[[IO[bytes], Mapping[str, Tensor], ModelConfig], None]


def write_weights(
    file: IO[bytes], state: Mapping[str, Tensor], config: ModelConfig, *, form: str
) -> None:
    """Write the parameters of a model.

    Args:
        file: open for writing.
        state: parameters by our names, in the order of the model.
        config: sizes of the model.
        form: one of FORMATS.

    Raises:
        OSError: the file cannot be written.
        WeightsError: the package safetensors is needed and not installed.
    """
    FORMATS[form](file, state, config)


def _write_alphafold(file: IO[bytes], state: Mapping[str, Tensor], config: ModelConfig) -> None:
    arrays = to_arrays(state, config)
    np.savez(file, **{name: arrays[name].numpy() for name in sorted(arrays)})


def _write_openfold(file: IO[bytes], state: Mapping[str, Tensor], config: ModelConfig) -> None:
    torch.save({openfold_name(name): tensor for name, tensor in state.items()}, file)


def _write_safetensors(file: IO[bytes], state: Mapping[str, Tensor], config: ModelConfig) -> None:
    metadata = {"format": "pt", MODEL_CONFIG_KEY: model_config_as_json(config)}
    file.write(safetensors_bytes(state, metadata))


FORMATS: Mapping[str, Writer] = {
    "alphafold": _write_alphafold,
    "openfold": _write_openfold,
    "safetensors": _write_safetensors,
}
"""Forms that can be written: an .npz file of AlphaFold, a state dict of OpenFold with its current
names, and a safetensors file with our names and the sizes of the model."""
