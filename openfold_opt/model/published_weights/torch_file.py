"""Read files of torch.save without running code that they contain."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from openfold_opt.model.weights import WeightsError

_FORBIDDEN_CLASS = re.compile(r"GLOBAL ([\w.]+)")
"""Matches the class name in the message of torch.load when it refuses to load a class."""
_NO_CHECKPOINT = "Weights only load failed"
"""Start of the message of torch.load about bytes that are not a checkpoint.

The rest of the message advises loading them without the check.
"""


def read_torch_file(path: Path) -> Mapping[str, object]:
    """Return the content of a file of torch.save, with tensors on the CPU.

    Raises WeightsError if torch.load cannot read the file, or if it does not hold a dict.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many types of errors on invalid bytes
        forbidden = _FORBIDDEN_CLASS.search(str(error))
        if forbidden is not None:
            raise WeightsError(
                f"{path} holds an object of the class {forbidden[1]}, which is not loaded because "
                "such objects can run code; expected only tensors, numbers, strings, lists and "
                "dicts: save only the weights, without that object"
            ) from error
        raise WeightsError(
            f"{path} is not a checkpoint that torch.load can read: {_why_not_loaded(path, error)}"
        ) from error
    _check_sums(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a dict")
    return content


def _check_sums(path: Path) -> None:
    """Raise WeightsError if a part of a zip file is damaged: torch.load does not check this."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (zipfile.BadZipFile, RuntimeError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {error}; fetch it again") from error
    if damaged is not None:
        raise WeightsError(f"{path} is damaged: the checksum of {damaged} is wrong; fetch it again")


def _why_not_loaded(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "it is empty; fetch it again"
    start = first_bytes(path)
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "its end, which lists the content, is missing: it was cut short, so fetch it again"
    if str(error).startswith(_NO_CHECKPOINT) or not zipfile.is_zipfile(path):
        return (
            f"it begins with {start!r}; expected a file of torch.save, so fetch it again or save "
            "it with torch.save"
        )
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def first_bytes(path: Path, count: int = 20) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(count)
