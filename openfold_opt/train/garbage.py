"""Python's garbage collector, kept out of the steps."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """No automatic collection while open; what exists at the start is not looked at by an explicit gc.collect() either.

    A collection in the midst of a step would keep the GPU waiting on one rank, and with it all the others.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
