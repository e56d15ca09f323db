"""Recording work once and launching it as a whole: the seam between the step and CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Work = Callable[[], None]


class Recording(Protocol):
    """Work that was recorded."""

    def replay(self) -> None:
        """Do the work again, on the memory that it was recorded on."""

    def reset(self) -> None:
        """Give the memory back; no replay afterwards. To be called before process groups end: NCCL waits for the graphs it is in."""


class Recorder(Protocol):
    """Turns work into something that repeats it with one launch."""

    def rehearse(self, work: Work) -> None:
        """Do the work once, so that whatever is made at the first time (handles, compiled kernels, workspaces) is there."""

    def record(self, work: Work) -> Recording:
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

    def rehearse(self, work: Work) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def record(self, work: Work) -> Recording:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, NCCL's watchdog and the stager among them, go on calling CUDA meanwhile
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph
