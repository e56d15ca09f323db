"""Recording work once and launching it as a whole: the seam between the step and CUDA."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

Work = Callable[[], None]

_PACKAGE = Path(__file__).resolve().parents[2]


class CaptureError(ValueError):
    """A CUDA graph could not be recorded. The text names the operation and the remedy."""


class Capture(Protocol):
    """Work that was recorded."""

    def replay(self) -> None:
        """Do the work again, on the memory that it was recorded on."""

    def reset(self) -> None:
        """Give the memory back; no replay afterward. To be called before process groups end: NCCL waits for the graphs it is in."""


class Recorder(Protocol):
    """Turns work into something that repeats it with one launch."""

    def warm_up_run(self, work: Work) -> None:
        """Do the work once, so that whatever is made at the first time (handles, compiled kernels, workspaces) is there."""

    def record(self, work: Work) -> Capture:
        """Recording need not do the work."""


class CudaRecorder:
    """CUDA graphs that share one pool of memory.

    Whatever the work allocates lives in the pool and is overwritten by the next replay of any of its graphs, so results must be
    copied to memory from outside before the work ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def warm_up_run(self, work: Work) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def record(self, work: Work) -> Capture:
        """Raises CaptureError if an operation of the work cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        errors: list[RuntimeError] = []

        def noted() -> None:
            try:
                work()
            except RuntimeError as error:
                errors.append(error)
                raise

        try:
            # thread_local: NCCL's watchdog and the stager call CUDA meanwhile, in other threads.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                noted()
        except RuntimeError as error:
            # Ending a broken capture raises a second error; the first one names the operation.
            first = errors[0] if errors else error
            raise CaptureError(_explain(first)) from first
        return graph


def _explain(error: RuntimeError) -> str:
    """Message of a CaptureError: operation, reason, remedy."""
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
        "or set cuda_graphs=False in the preset to train without graphs"
    )
