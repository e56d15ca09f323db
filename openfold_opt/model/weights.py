"""Loading of weights by name, with error messages that name each mismatch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

RESUMABLE_KEY = "alphafold_state_dict"
"""Key of the weights in a checkpoint that also contains the optimizer state."""

_MAX_NAMES_IN_MESSAGE = 8


class WeightsError(ValueError):
    """Weights cannot be used; the message names them, the reason and the remedy."""


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
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    mismatch = describe_mismatch(tensors, expected)
    if mismatch:
        raise WeightsError(f"weights of {source} do not fit the model; {mismatch}")


def describe_mismatch(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]
) -> str | None:
    """Return which names are missing or extra, and which shapes are wrong; None if there are none.

    Args:
        tensors: tensors by name.
        expected: shapes by name.
    """
    wrong_shape = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    problems = [
        f"{len(names)} {what}: {list_names(names)}"
        for what, names in (
            ("missing", [name for name in expected if name not in tensors]),
            ("extra", [name for name in tensors if name not in expected]),
            ("with a wrong shape", wrong_shape),
        )
        if names
    ]
    return "; ".join(problems) or None


def list_names(names: Iterable[str]) -> str:
    """Return the first names as text, and how many more there are."""
    names = list(names)
    more = len(names) - _MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:_MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
