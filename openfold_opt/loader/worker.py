"""A worker process: receives one position at a time over a channel and answers with the batch.

If the preparation fails, the answer is a description of the failure. The consumer is the process
that started the worker. When it ends for any reason, the worker exits, even while it prepares a
batch. Arrays are sent in anonymous memory, which does not outlive the processes.
"""

import ctypes
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Protocol

import torch

from openfold_opt.loader.array_transfer import channel_pair, receive_arrays, send_arrays
from openfold_opt.loader.batch import Delivery, WireFeatures

MAX_TRACEBACK_CHARACTERS = 20_000
MAX_REQUEST_BYTES = 64
JOIN_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that a process gets when its parent ends."""


class Task(Protocol):
    """The work of a worker. Must be picklable, because it is sent to another process."""

    def __call__(self, position: int) -> tuple[object, WireFeatures]:
        """Prepare batch number `position`; return a small picklable description and its arrays."""

    def describe(self, position: int) -> str:
        """Describe the samples of batch number `position` for an error message."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why an attempt to prepare a batch failed."""

    reason: str


def attempt(task: Task, position: int) -> Delivery | Failure:
    """Run the task; convert an exception to a Failure with its traceback."""
    started = time.perf_counter()
    try:
        description, arrays = task(position)
    except Exception as error:
        text = traceback.format_exc()[-MAX_TRACEBACK_CHARACTERS:]
        return Failure(reason=f"{type(error).__name__}: {error}\n{text}")
    return Delivery(
        position=position,
        description=description,
        arrays=arrays,
        preparation_seconds=time.perf_counter() - started,
    )


@dataclass(kw_only=True, eq=False)
class Worker:
    """The consumer's side of a worker process."""

    process: multiprocessing.process.BaseProcess
    channel: socket.socket
    position: int | None = None
    """Position of the batch that the worker is preparing."""
    request_time: float = 0.0
    """time.monotonic() of the last request."""

    @classmethod
    def start(cls, task: Task, *, start_method: str, name: str) -> "Worker":
        """Start a worker process for a task."""
        ours, theirs = channel_pair()
        process = multiprocessing.get_context(start_method).Process(
            target=_serve, args=(theirs, task), name=name, daemon=True
        )
        process.start()
        theirs.close()
        return cls(process=process, channel=ours)

    def request(self, position: int) -> None:
        """Request a batch. The death of a worker is detected when its answer is received."""
        self.position, self.request_time = position, time.monotonic()
        try:
            self.channel.send(pickle.dumps(position))
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> Delivery | Failure | None:
        """Return the answer once the channel is readable; None if the process has died."""
        try:
            (kind, content, seconds), arrays = receive_arrays(self.channel)
        except EOFError:
            return None
        position, self.position = self.position, None
        if kind == "failure":
            return Failure(reason=content)
        return Delivery(
            position=position, description=content, arrays=arrays, preparation_seconds=seconds
        )

    def describe_exit(self) -> str:
        """Describe how the process ended."""
        self.process.join(JOIN_SECONDS)
        code = self.process.exitcode
        return (
            f"worker process {self.process.pid} died with exit code {code} "
            "(-9: killed, often because memory ran out)"
        )

    def kill(self) -> None:
        """Kill the process. It only reads files, so nothing is lost.

        A process that waits for an unavailable file system cannot end until the file system
        returns, so the wait for its end is limited to JOIN_SECONDS.
        """
        self.channel.close()
        self.process.kill()
        self.process.join(JOIN_SECONDS)


def _serve(channel: socket.socket, task: Task) -> None:
    """Run the main loop of the process."""
    _die_with_consumer()
    # Only the consumer handles interrupts. Signal handlers that it installed must not run here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Launchers signal the whole process group. The consumer decides when its workers end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    torch.set_num_threads(1)
    while request := _next_request(channel):
        result = attempt(task, pickle.loads(request))
        try:
            if isinstance(result, Failure):
                send_arrays(channel, ("failure", result.reason, 0.0), {})
            else:
                message = ("batch", result.description, result.preparation_seconds)
                send_arrays(channel, message, result.arrays)
        except (BrokenPipeError, ConnectionResetError):
            # The consumer has closed its end and no longer needs the batch.
            return


def _next_request(channel: socket.socket) -> bytes:
    try:
        return channel.recv(MAX_REQUEST_BYTES)
    except ConnectionResetError:
        return b""


def _die_with_consumer() -> None:
    """Make this process die with the consumer, even if it hangs in a system call.

    Linux kills it if the consumer is its parent. The parent of a process from a fork server is the
    server, which lives as long as its children. For that case, a thread waits for the end of the
    consumer.
    """
    consumer = multiprocessing.parent_process()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not consumer.is_alive():
        os._exit(1)
    threading.Thread(
        target=_kill_after, args=(consumer,), name="consumer-watch", daemon=True
    ).start()


def _kill_after(process: multiprocessing.process.BaseProcess) -> None:
    process.join()
    os.kill(os.getpid(), signal.SIGKILL)
