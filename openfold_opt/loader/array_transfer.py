"""Sending arrays between processes without copying them through a pipe.

The arrays of a message are laid out in one anonymous file in memory (memfd_create), whose descriptor travels over a Unix socket;
the receiver maps it. Compared with torch's shared-memory tensors: nothing appears in /dev/shm (which containers keep small), no
process needs to stay alive until its last message is opened, and nothing is left behind by a process that is killed.
"""

import errno
import mmap
import os
import pickle
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT_BYTES = 64
MAX_HEADER_BYTES = 128 * 1024


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends of a channel that keeps the boundaries of messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_arrays(channel: socket.socket, message: Any, arrays: dict[str, np.ndarray]) -> None:
    """Sends a small picklable message along with named arrays. OSError if the other end is closed."""
    send_arrays_to_all([channel], message, arrays)


def send_arrays_to_all(
    channels: Sequence[socket.socket], message: Any, arrays: dict[str, np.ndarray]
) -> None:
    """The same to several receivers, which share one copy of the memory: they must not write to it."""
    layout, size = [], 0
    for name, array in arrays.items():
        layout.append((name, array.shape, array.dtype.str, size))
        size += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    header = pickle.dumps((message, layout, size))
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(
            f"header of a message has {len(header)} bytes, expected {MAX_HEADER_BYTES} at most; send less beside the arrays"
        )
    descriptor = os.memfd_create("batch", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, max(size, 1))
        with mmap.mmap(descriptor, max(size, 1)) as memory:
            _write(memory, layout, arrays)
        for channel in channels:
            socket.send_fds(channel, [header], [descriptor])
    finally:
        os.close(descriptor)


def receive_arrays(channel: socket.socket) -> tuple[Any, dict[str, np.ndarray]]:
    """Receives what `send_arrays` sent; the arrays live in memory that is freed with the last of them.

    Raises:
        EOFError: the other end was closed, or its process died.
        TimeoutError: the channel's timeout passed first.
        OSError: this process has too many open files.
    """
    try:
        header, descriptors, _, _ = socket.recv_fds(channel, MAX_HEADER_BYTES, 1)
    except ConnectionResetError:
        # Linux reports once that the other end closed with unread input; what it sent before is still to be had.
        header, descriptors, _, _ = socket.recv_fds(channel, MAX_HEADER_BYTES, 1)
    if not header:
        raise EOFError("the other end of the channel is closed")
    if not descriptors:
        # the kernel drops a descriptor for which this process has no room
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    (descriptor,) = descriptors
    try:
        message, layout, size = pickle.loads(header)
        memory = mmap.mmap(descriptor, max(size, 1))
    finally:
        os.close(descriptor)
    return message, _views(memory, layout)


def _write(
    memory: mmap.mmap,
    layout: list[tuple[str, tuple[int, ...], str, int]],
    arrays: dict[str, np.ndarray],
) -> None:
    # A function of its own: the mapping cannot be closed while a view of it exists.
    for name, view in _views(memory, layout).items():
        view[...] = arrays[name]


def _views(
    memory: mmap.mmap, layout: list[tuple[str, tuple[int, ...], str, int]]
) -> dict[str, np.ndarray]:
    return {
        name: np.ndarray(shape, np.dtype(dtype), buffer=memory, offset=offset)
        for name, shape, dtype, offset in layout
    }
