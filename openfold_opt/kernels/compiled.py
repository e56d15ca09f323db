"""The plain operations as torch.compile makes them.

Compiled at the first call with each shape (warm-up does that before the clock). What was compiled stays in TorchInductor's cache, which
lies in TORCHINDUCTOR_CACHE_DIR or a folder of the user's in /tmp, and later processes take it from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch

NOT_COMPILED = {
    "dropout_masks": "its 64-bit integer products are no gain",
    "weight_update": "it works in place on tensors that outlive it",
}
"""Operation -> why it is not offered."""


@functools.cache
def compile_operations(plain: tuple[tuple[str, Callable], ...]) -> Mapping[str, Callable]:
    """Name -> compiled operation; nothing is compiled before the first call.

    plain: (name, plain version) of all operations.
    """
    return {name: _compile(name, operation) for name, operation in plain if name not in NOT_COMPILED}


def _compile(name: str, operation: Callable) -> Callable:
    return _compile_self_attention(operation) if name == "self_attention" else torch.compile(operation, dynamic=False)


def _compile_self_attention(operation: Callable) -> Callable:
    """The compiler sees the bias that has arrived, not the waiting for it."""

    def with_tensor(*args, bias, **options):
        return operation(*args, bias=None if bias is None else lambda: bias, **options)

    compiled = torch.compile(with_tensor, dynamic=False)
    return lambda *args, bias=None, **options: compiled(*args, bias=None if bias is None else bias(), **options)
