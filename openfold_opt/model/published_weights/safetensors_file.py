"""Read and write safetensors files with the package safetensors, which is optional."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from openfold_opt.model.weights import WeightsError

MODEL_CONFIG_KEY = "model_config"
"""Key of the sizes of the model, as JSON, in the metadata of the files that we write."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the texts of the metadata of a file.

    Raises WeightsError if the package is not installed, or if the file is damaged.
    """
    require_safetensors(f"{path} is a safetensors file")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{path} cannot be read as a safetensors file: {reason}; it was cut short or damaged, "
            "so fetch it again"
        ) from error


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file with these tensors and texts.

    Raises WeightsError if the package is not installed.
    """
    require_safetensors("the format safetensors is requested")
    from safetensors.torch import save

    return save({name: x.contiguous() for name, x in tensors.items()}, metadata=dict(metadata))


def require_safetensors(what: str) -> None:
    """Raise WeightsError if the package is not installed. what: the reason why it is needed."""
    if importlib.util.find_spec("safetensors") is None:
        raise WeightsError(
            f"{what}, which needs the package safetensors; install it with pip install safetensors"
        )
