"""Worker processes that prepare batches ahead and deliver them in order.

Of W workers, worker w prepares the positions first + w, first + w + W, ... of the stream, so the order needs no queue, no lock and
no thread: the consumer asks each worker's channel in turn. A worker may be ahead by a number of batches (its credits); each batch
taken gives one back. A worker that raises sends its traceback; one that dies closes its channel; one that stalls runs into the
timeout. Each of these is a LoaderError in the consumer that names the samples. A worker whose consumer is gone leaves by itself.
"""

import multiprocessing
import os
import select
import signal
import socket
import traceback
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch

from openfold_opt.loader.array_transfer import channel_pair, receive_arrays, send_arrays
from openfold_opt.loader.config import LoaderConfig

ORPHAN_CHECK_SECONDS = 2.0
CLOSE_SECONDS = 10.0
MAX_TRACEBACK_CHARACTERS = 20_000
CREDIT = b"1"


class LoaderError(RuntimeError):
    """A batch could not be prepared; the message names its samples and the cause."""


class Task(Protocol):
    """What workers do. Picklable, so that it can be sent to a spawned process."""

    def __call__(self, position: int) -> tuple[Any, dict[str, np.ndarray]]:
        """Prepares batch number `position`: a small picklable description and its arrays."""

    def describe(self, position: int) -> str:
        """Names the samples of batch number `position` for an error message."""


class OrderedWorkers:
    """Iterates the results of `task` for positions first, first + 1, ... (up to `end`, exclusive, unless None).

    With num_workers 0 the task runs in this process. Use as a context manager, or call close(), which leaves no process behind.
    """

    def __init__(self, task: Task, *, config: LoaderConfig, first: int = 0, end: int | None = None) -> None:
        self._task = task
        self._config = config
        self._next = self._first = first
        self._end = end
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._channels: list[socket.socket] = []
        self._is_closed = False
        for worker in range(config.num_workers):
            self._start_worker(worker)

    def _start_worker(self, worker: int) -> None:
        context = multiprocessing.get_context(self._config.start_method)
        ours, theirs = channel_pair()
        ours.settimeout(self._config.timeout_seconds)
        positions = (self._first + worker, self._end, self._config.num_workers)
        # The fork server is between us and its children; elsewhere a worker whose parent is another has lost us.
        consumer = None if self._config.start_method == "forkserver" else os.getpid()
        process = context.Process(
            target=_work,
            args=(theirs, self._task, positions, self._config.prefetch_per_worker, consumer),
            name=f"loader-{worker}",
            daemon=True,
        )
        process.start()
        theirs.close()
        self._processes.append(process)
        self._channels.append(ours)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        return self

    def __next__(self) -> tuple[Any, dict[str, np.ndarray]]:
        if self._is_closed:
            raise LoaderError("the loader is closed; make a new one to read on")
        if self._end is not None and self._next >= self._end:
            raise StopIteration
        result = self._receive(self._next) if self._processes else self._prepare_here(self._next)
        self._next += 1
        return result

    def _prepare_here(self, position: int) -> tuple[Any, dict[str, np.ndarray]]:
        try:
            return self._task(position)
        except Exception as error:
            raise LoaderError(f"preparing {self._task.describe(position)} failed: {error}") from error

    def _receive(self, position: int) -> tuple[Any, dict[str, np.ndarray]]:
        worker = (position - self._first) % len(self._processes)
        channel, process = self._channels[worker], self._processes[worker]
        try:
            (kind, content), arrays = receive_arrays(channel)
        except EOFError:
            process.join(CLOSE_SECONDS)
            message = (
                f"worker {worker} (process {process.pid}) died with exit code {process.exitcode} "
                f"(-9: killed, often for want of memory) while preparing {self._task.describe(position)}"
            )
            raise self._failure(message) from None
        except TimeoutError:
            message = (
                f"worker {worker} (process {process.pid}) did not deliver {self._task.describe(position)} "
                f"within {self._config.timeout_seconds} s; look at the file system, or raise LoaderConfig.timeout_seconds"
            )
            raise self._failure(message) from None
        if kind == "error":
            raise self._failure(f"preparing {self._task.describe(position)} failed in worker {worker}: {content}")
        self._return_credit(channel)
        return content, arrays

    def _failure(self, message: str) -> LoaderError:
        self.close()
        return LoaderError(message)

    def _return_credit(self, channel: socket.socket) -> None:
        try:
            channel.send(CREDIT)
        except OSError:
            # The worker has finished or died; if a batch is still due from it, the next receive says so.
            return

    def close(self) -> None:
        """Ends the workers and waits for them. Workers only read, so ending one in the middle of a batch loses nothing."""
        self._is_closed = True
        for channel in self._channels:
            channel.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(CLOSE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._channels, self._processes = [], []

    def __enter__(self) -> "OrderedWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work(channel: socket.socket, task: Task, positions: tuple[int, int | None, int], credits: int, consumer: int | None) -> None:
    """Main function of a worker: prepares its positions while it has credits."""
    # Interrupts are the consumer's business, and handlers that it installed are not for this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    position, end, stride = positions
    while end is None or position < end:
        if credits == 0 and not _wait_for_credit(channel, consumer):
            return
        credits = max(credits - 1, 0)
        message, arrays = _result(task, position)
        try:
            send_arrays(channel, message, arrays)
        except (BrokenPipeError, ConnectionResetError):
            # The consumer has closed its end: nobody wants the batch any more.
            return
        if message[0] == "error":
            break
        position += stride
    while _wait_for_credit(channel, consumer):
        # All is sent; leaving before the consumer closes would look like a death.
        pass


def _result(task: Task, position: int) -> tuple[tuple[str, Any], dict[str, np.ndarray]]:
    """The message of a position: ("batch", description) with its arrays, or ("error", traceback)."""
    try:
        description, arrays = task(position)
    except Exception as error:
        text = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-MAX_TRACEBACK_CHARACTERS:]}"
        return ("error", text), {}
    return ("batch", description), arrays


def _wait_for_credit(channel: socket.socket, consumer: int | None) -> bool:
    """True once a credit has come; False if the consumer closed the channel or is gone."""
    while not select.select([channel], [], [], ORPHAN_CHECK_SECONDS)[0]:
        # Forked siblings hold copies of the consumer's ends, so its death alone may close neither channel nor sentinel.
        if consumer not in (None, os.getppid()) or not multiprocessing.parent_process().is_alive():
            return False
    try:
        return channel.recv(len(CREDIT)) == CREDIT
    except ConnectionResetError:
        return False
