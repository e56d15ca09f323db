"""Capture work once and replay it with a single launch, as a CUDA graph."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

Work = Callable[[], None]
"""Launches operations on the device."""

_PACKAGE = Path(__file__).resolve().parents[2]


class CaptureError(ValueError):
    """A CUDA graph could not be captured. The message names the operation and the remedy."""


class Capture(Protocol):
    """Captured work."""

    def replay(self) -> None:
        """Repeat the work on the same memory."""

    def reset(self) -> None:
        """Release the memory. The capture cannot be replayed afterward.

        Call this before process groups are destroyed: NCCL waits for the graphs that use it.
        """


class Recorder(Protocol):
    """Captures work, so that it can be repeated with one launch."""

    def warm_up_run(self, work: Work) -> None:
        """Run the work without a capture.

        This creates everything that the first run creates: handles, kernels and workspaces.
        """

    def record(self, work: Work) -> Capture:
        """Capture the work. This does not necessarily run it."""


class CudaRecorder:
    """Captures CUDA graphs that share one memory pool.

    Memory that the work allocates belongs to the pool, and the next replay of any of the graphs
    overwrites it. The work must therefore copy its results to memory outside the pool.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        remedy: str = "set cuda_graphs=False in the preset to train without graphs",
    ) -> None:
        """remedy: what the message of a CaptureError proposes besides a correction."""
        self._device, self._remedy = device, remedy
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def warm_up_run(self, work: Work) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def record(self, work: Work) -> Capture:
        """Capture the work. Raises CaptureError if an operation cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        errors: list[RuntimeError] = []

        def keep_error() -> None:
            try:
                work()
            except RuntimeError as error:
                errors.append(error)
                raise

        try:
            # thread_local, because NCCL's watchdog and the prefetcher call CUDA in other threads.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                keep_error()
        except RuntimeError as error:
            # The end of a failed capture raises a second error; the first one is specific.
            first = errors[0] if errors else error
            raise CaptureError(_explain(first, self._remedy)) from first
        return graph


def _explain(error: RuntimeError, remedy: str) -> str:
    """Return the message of a CaptureError: operation, reason and remedy."""
    own_files = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PACKAGE) and frame.filename != __file__
    ]
    where = "the beginning or the end of the capture"
    if own_files:
        frame = own_files[-1]
        path = Path(frame.filename).relative_to(_PACKAGE.parent)
        where = f"{path}:{frame.lineno}, in {frame.name}: {frame.line}"
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"a CUDA graph could not be recorded: {reason} (at {where}). An operation in a graph may "
        "neither wait for the host nor copy from host memory that is not pinned; correct this one, "
        f"or {remedy}"
    )
