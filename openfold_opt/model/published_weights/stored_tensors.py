"""Find the weights of a model in a file: its container, and the dicts that enclose the weights."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from openfold_opt.model.published_weights.safetensors_file import read_safetensors
from openfold_opt.model.published_weights.torch_file import first_bytes, read_torch_file
from openfold_opt.model.weights import RESUMABLE_KEY, WeightsError, list_names

Container = Literal["torch", "npz", "safetensors"]
Which = Literal["average", "trained"]
"""The running average of the weights, or the weights that the optimizer changes."""

AVERAGE_KEY = "weight_average_state_dict"
"""Key of the averaged weights next to RESUMABLE_KEY."""
OPTIMIZER_KEY = "optimizer_state_dict"
_WRAPPERS = ("state_dict", "module")
"""Keys of the trained weights in the checkpoints of Lightning and DeepSpeed."""
_PREFIXES = ("module.", "model.", "_orig_mod.")
"""Starts of the names in checkpoints of models that were wrapped."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTensors:
    """The tensors of a file under its own names."""

    container: Container
    tensors: Mapping[str, Tensor]
    which: str = ""
    """Where the file has several sets of weights, the one that was taken; else empty."""
    optimizer_state: object = None
    """State of Adam next to trained weights, if the file has it."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Texts of a safetensors file."""


def read_stored_tensors(path: Path, *, which: Which) -> StoredTensors:
    """Read the weights of a file. The container is recognized from the content of the file.

    which: the set of weights to take if the file has both.

    Raises WeightsError if the file is damaged, of another kind, or has no weights.
    """
    container = _recognize_container(path)
    if container == "npz":
        return StoredTensors(container=container, tensors=_read_npz(path))
    if container == "safetensors":
        tensors, metadata = read_safetensors(path)
        return StoredTensors(
            container=container, tensors=_checked(path, tensors), metadata=metadata
        )
    return _unwrap(path, read_torch_file(path), which=which)


def _recognize_container(path: Path) -> Container:
    start = first_bytes(path)
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise WeightsError(
                f"{path} begins like a zip file, but its content is not listed at its end "
                f"({error}): it was cut short or damaged, so fetch it again"
            ) from error
        is_torch = any(name.rpartition("/")[2] == "data.pkl" for name in members)
        return "torch" if is_torch else "npz"
    # A safetensors file begins with the length of its header, a JSON object.
    is_header = len(start) > 8 and start[8:9] == b"{"
    if is_header and struct.unpack("<Q", start[:8])[0] < 2**32:
        return "safetensors"
    return "torch"


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as an .npz file of plain arrays: {reason}; fetch it again"
        ) from error
    wrong = [name for name, array in arrays.items() if array.dtype.kind != "f"]
    if wrong:
        raise WeightsError(
            f"{path}: {len(wrong)} of {len(arrays)} arrays do not hold floating-point numbers: "
            f"{list_names(wrong)}; expected weights"
        )
    return _checked(path, {name: torch.from_numpy(array) for name, array in arrays.items()})


def _unwrap(path: Path, content: Mapping[str, object], *, which: Which) -> StoredTensors:
    """Find the weights in the dicts of MLCommons, Lightning, DeepSpeed, or a plain state dict."""
    if RESUMABLE_KEY in content:
        if which == "average" and AVERAGE_KEY in content:
            tensors = _checked(path, content[AVERAGE_KEY], key=AVERAGE_KEY)
            return StoredTensors(container="torch", tensors=tensors, which="averaged weights")
        return StoredTensors(
            container="torch",
            tensors=_checked(path, content[RESUMABLE_KEY], key=RESUMABLE_KEY),
            which="trained weights" if AVERAGE_KEY in content else "",
            optimizer_state=content.get(OPTIMIZER_KEY),
        )
    average = content.get("ema")
    has_average = isinstance(average, Mapping) and "params" in average
    wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if has_average and (which == "average" or wrapper is None):
        tensors = _checked(path, average["params"], key="ema/params")
        return StoredTensors(container="torch", tensors=tensors, which="averaged weights (EMA)")
    if wrapper is not None:
        tensors = _checked(path, content[wrapper], key=wrapper)
        return StoredTensors(container="torch", tensors=tensors, which="trained weights")
    return StoredTensors(container="torch", tensors=_checked(path, content))


def _checked(path: Path, tensors: object, *, key: str = "") -> dict[str, Tensor]:
    """Return the tensors without the prefix of a wrapped model.

    Raises WeightsError if there are no tensors, or if a value is not a floating-point tensor.
    """
    place = f"{path}: {key}" if key else f"{path}"
    if not isinstance(tensors, Mapping):
        raise WeightsError(
            f"{place} is a {type(tensors).__name__}, expected names with tensors; save the state "
            "dict of the model"
        )
    if not tensors:
        raise WeightsError(f"{place} is empty, expected the weights of a model; fetch it again")
    invalid = [
        str(name)
        for name, tensor in tensors.items()
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point())
    ]
    if invalid:
        raise WeightsError(
            f"{place}: {len(invalid)} of {len(tensors)} entries are not floating-point tensors: "
            f"{list_names(invalid)}; expected a state dict"
        )
    return _without_prefix(tensors)


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {name: name for name in tensors}
    while prefix := next(
        (x for x in _PREFIXES if all(short.startswith(x) for short in names.values())), None
    ):
        names = {name: short.removeprefix(prefix) for name, short in names.items()}
    return {short: tensors[name] for name, short in names.items()}
