"""Loading of weights by name, with error messages that name each mismatch."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

RESUMABLE_KEY = "alphafold_state_dict"
"""Key of the weights in a checkpoint that also contains the optimizer state."""

_MAX_NAMES_IN_MESSAGE = 8


class WeightsError(ValueError):
    """Weights do not belong to the model."""


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into a model with exactly these names and shapes.

    Raises:
        WeightsError: see `check_weights`; the model is unchanged.
    """
    check_weights(model, tensors, source=source)
    model.load_state_dict(dict(tensors))


def check_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Check that names and shapes of the tensors are those of the model.

    Args:
        model: the model.
        tensors: weights by name.
        source: where the tensors come from, for messages.

    Raises:
        WeightsError: tensors are missing or extra, or have a wrong shape; names them.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    wrong_shape = [
        f"{name} {list(tensors[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (
            ("missing", missing),
            ("extra", extra),
            ("with a wrong shape", wrong_shape),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"weights of {source} do not fit the model; " + "; ".join(problems))


def _listed(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:_MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
