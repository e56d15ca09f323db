"""Lookup of the tables of openfold_opt.protein by residue type on the device."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def constant_when_traced(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Mark a function like torch.compiler.assume_constant_result, and return it.

    torch.compile calls the function when it traces a call, and uses the result as a constant. The
    function of PyTorch imports TorchDynamo, which takes a second at the start of every process.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def lookup(table: np.ndarray, aatype: Tensor) -> Tensor:
    """Return the rows of a table [21, ...] for aatype [...], classes 0..20.

    Class 21, a gap, has the row of class 20. Each table is copied to each device once and cached,
    so that a training step copies nothing from the host.

    Returns:
        [..., *table.shape[1:]] with the dtype of the table, on the device of aatype.

    Raises:
        ValueError: The table is writeable. The cached copy would not follow its changes.
    """
    rows = getattr(_COPIES, _copy_once(table, aatype.device))
    return rows[aatype.clamp(max=len(rows) - 1)]


@constant_when_traced
def _copy_once(table: np.ndarray, device: torch.device) -> str:
    """Copy a table to a device unless _COPIES has it, and return the name of its attribute.

    torch.compile calls this when it traces `lookup`, so compiled code only reads the attribute.
    """
    if table.flags.writeable:
        raise ValueError(
            f"found a writeable table of shape {table.shape}, expected a read-only one; "
            "call setflags(write=False) where the table is created"
        )
    number, _ = _TABLES.setdefault(id(table), (len(_TABLES), table))
    name = f"table_{number}_on_{device}"
    if not hasattr(_COPIES, name):
        setattr(_COPIES, name, torch.tensor(table).to(device))
    return name


_COPIES = SimpleNamespace()
"""The copies on devices. Tables and devices are few, and no copy is ever removed."""

_TABLES: dict[int, tuple[int, np.ndarray]] = {}
"""id of a copied table -> its number, and the table, so that no other array can get the same id."""
