"""A worker process: asked for one batch at a time over a channel, answers with the batch or with what went wrong.

When the consumer is gone, however it went, the worker leaves, also from the middle of a batch. Arrays travel in anonymous memory, of
which nothing outlives the processes.
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
from typing import Any, Protocol

import numpy as np
import torch

from openfold_opt.loader.array_transfer import channel_pair, receive_arrays, send_arrays

MAX_TRACEBACK_CHARACTERS = 20_000
MAX_REQUEST_BYTES = 64
JOIN_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


class Task(Protocol):
    """What workers do. Picklable, so that it can be sent to a process that shares no memory with this one."""

    def __call__(self, position: int) -> tuple[Any, dict[str, np.ndarray]]:
        """Prepares batch number `position`: a small picklable description and its arrays."""

    def describe(self, position: int) -> str:
        """Names the samples of batch number `position` for an error message."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch as a worker made it."""

    description: Any
    arrays: dict[str, np.ndarray]
    seconds: float
    """Time that its preparation took."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt to prepare a batch came to nothing."""

    reason: str


def attempt(task: Task, position: int) -> Prepared | Failure:
    """Runs the task; an exception becomes a Failure with its traceback."""
    started = time.perf_counter()
    try:
        description, arrays = task(position)
    except Exception as error:
        text = traceback.format_exc()[-MAX_TRACEBACK_CHARACTERS:]
        return Failure(reason=f"{type(error).__name__}: {error}\n{text}")
    return Prepared(description=description, arrays=arrays, seconds=time.perf_counter() - started)


@dataclass(kw_only=True, eq=False)
class Worker:
    """The consumer's side of a worker process."""

    process: multiprocessing.process.BaseProcess
    channel: socket.socket
    position: int | None = None
    """What it is preparing."""
    asked: float = 0.0
    """time.monotonic() when it was asked."""
    num_answers: int = 0

    @classmethod
    def start(cls, task: Task, *, start_method: str, name: str) -> "Worker":
        ours, theirs = channel_pair()
        process = multiprocessing.get_context(start_method).Process(
            target=_serve, args=(theirs, task), name=name, daemon=True
        )
        process.start()
        theirs.close()
        return cls(process=process, channel=ours)

    def ask(self, position: int) -> None:
        """Asks for a batch. A worker that died meanwhile is noticed when its answer is received."""
        self.position, self.asked = position, time.monotonic()
        try:
            self.channel.send(pickle.dumps(position))
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> Prepared | Failure | None:
        """The answer, once the channel is readable; None if the process has died instead."""
        try:
            (kind, content, seconds), arrays = receive_arrays(self.channel)
        except EOFError:
            return None
        self.position = None
        self.num_answers += 1
        if kind == "failure":
            return Failure(reason=content)
        return Prepared(description=content, arrays=arrays, seconds=seconds)

    def describe_exit(self) -> str:
        """Says how the process ended."""
        self.process.join(JOIN_SECONDS)
        code = self.process.exitcode
        return f"worker process {self.process.pid} died with exit code {code} (-9: killed, often for want of memory)"

    def kill(self) -> None:
        """Ends the process at once. It only reads files, so nothing is lost.

        One that waits for a file system which is away cannot end before that comes back: nobody waits for it.
        """
        self.channel.close()
        self.process.kill()
        self.process.join(JOIN_SECONDS)


def _serve(channel: socket.socket, task: Task) -> None:
    """Main function of the process."""
    _die_with_consumer()
    # Interrupts are the consumer's business, and handlers that it installed are not for this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # launchers signal the whole process group: the consumer decides, and ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    torch.set_num_threads(1)
    while request := _next_request(channel):
        result = attempt(task, pickle.loads(request))
        try:
            if isinstance(result, Failure):
                send_arrays(channel, ("failure", result.reason, 0.0), {})
            else:
                send_arrays(channel, ("batch", result.description, result.seconds), result.arrays)
        except (BrokenPipeError, ConnectionResetError):
            # The consumer has closed its end: nobody wants the batch any more.
            return


def _next_request(channel: socket.socket) -> bytes:
    try:
        return channel.recv(MAX_REQUEST_BYTES)
    except ConnectionResetError:
        return b""


def _die_with_consumer() -> None:
    """Ends this process along with the consumer, even if it hangs in a system call and sees no closed channel.

    Linux does it where the consumer is the parent. Of a fork server's children the consumer is not, and they keep the server alive:
    there a thread waits for the consumer's end.
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
