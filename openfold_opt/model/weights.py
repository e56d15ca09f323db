"""Weights on disk: the published checkpoint's forms, and precise words when a file does not fit the model."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

RESUMABLE_KEY = "alphafold_state_dict"
"""Key of the weights in a resumable checkpoint, beside the optimiser's state."""

_MAX_NAMES_IN_MESSAGE = 8


class WeightsError(ValueError):
    """A file of weights cannot be read, or does not belong to the model."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path, *, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Reads name -> tensor from a file.

    Args:
        path: torch.save of a state dict, or of a dict that has one under `alphafold_state_dict`; or .npz.
        expected_sha256: checked if given.

    Raises:
        WeightsError: the file is missing, has another SHA-256, or holds no weights.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    if expected_sha256 is not None and (found := file_sha256(path)) != expected_sha256:
        raise WeightsError(
            f"weights file {path} has SHA-256 {found}, expected {expected_sha256}; fetch it again, or name the right file"
        )
    content = _read_npz(path) if path.suffix == ".npz" else _read_torch(path)
    tensors = content.get(RESUMABLE_KEY, content)
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise WeightsError(
            f"weights file {path} holds no state dict: expected names with tensors, or such a dict under {RESUMABLE_KEY!r}"
        )
    return dict(tensors)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copies tensors into a model of exactly these names and shapes.

    Args:
        source: where the tensors come from, for messages.

    Raises:
        WeightsError: tensors are missing, extra or misshapen; the message names them. The model is left as it was.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    misshapen = [
        f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise WeightsError(f"weights of {source} do not fit the model; " + "; ".join(problems))
    model.load_state_dict(dict(tensors))


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the state dict, on the CPU and in the order of the model, under a temporary name that is then renamed."""
    temporary = path.with_name(path.name + ".partial")
    torch.save({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, temporary)
    temporary.replace(path)


def _listed(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:_MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"weights file {path} is not a readable .npz: {error}") from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for garbled files
        raise WeightsError(f"weights file {path} is not readable by torch.load: {error}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"weights file {path} holds a {type(content).__name__}, expected a dict of tensors")
    return dict(content)
