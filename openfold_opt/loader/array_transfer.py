"""Transfer of arrays between processes through anonymous shared memory.

The arrays of a message are written to one anonymous file in memory (memfd_create). Its descriptor
is sent over a Unix socket, and the receiver maps the file. Compared with torch's shared-memory
tensors: nothing appears in /dev/shm (which containers keep small), a sender may exit before its
last message is opened, and a killed process leaves nothing behind.
"""

import errno
import mmap
import os
import pickle
import socket
from collections.abc import Sequence

import numpy as np

Layout = list[tuple[str, tuple[int, ...], str, int]]
"""Name, shape, dtype and offset in bytes of each array."""

ALIGNMENT_BYTES = 64
MAX_HEADER_BYTES = 128 * 1024


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two connected ends of a channel that preserves message boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_arrays(channel: socket.socket, message: object, arrays: dict[str, np.ndarray]) -> None:
    """Send a small picklable message and named arrays.

    Raises:
        ValueError: the pickled message and the array layout exceed MAX_HEADER_BYTES.
        OSError: the other end is closed.
    """
    send_arrays_to_all([channel], message, arrays)


def send_arrays_to_all(
    channels: Sequence[socket.socket], message: object, arrays: dict[str, np.ndarray]
) -> None:
    """Send like `send_arrays` to several receivers.

    The receivers share one copy of the memory and must not write to it.
    """
    layout: Layout = []
    size = 0
    for name, array in arrays.items():
        layout.append((name, array.shape, array.dtype.str, size))
        # Round up to the alignment.
        size += -(-array.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    header = pickle.dumps((message, layout, size))
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(
            f"the message header has {len(header)} bytes, expected at most {MAX_HEADER_BYTES}; "
            "make the message smaller or send its data as arrays"
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


def receive_arrays(channel: socket.socket) -> tuple[object, dict[str, np.ndarray]]:
    """Receive a message and its arrays.

    The shared memory is freed when the last of the arrays is freed.

    Raises:
        EOFError: the other end was closed, or its process died.
        TimeoutError: the channel timed out.
        OSError: this process has too many open files.
    """
    try:
        header, descriptors, _, _ = socket.recv_fds(channel, MAX_HEADER_BYTES, 1)
    except ConnectionResetError:
        # Linux reports once that the other end closed with unread input. Messages that it sent
        # before can still be received.
        header, descriptors, _, _ = socket.recv_fds(channel, MAX_HEADER_BYTES, 1)
    if not header:
        raise EOFError("the other end of the channel is closed")
    if not descriptors:
        # The kernel drops the descriptor if this process has reached its limit of open files.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    (descriptor,) = descriptors
    try:
        message, layout, size = pickle.loads(header)
        memory = mmap.mmap(descriptor, max(size, 1))
    finally:
        os.close(descriptor)
    return message, _views(memory, layout)


def _write(memory: mmap.mmap, layout: Layout, arrays: dict[str, np.ndarray]) -> None:
    # This is a separate function because a mapping cannot be closed while views of it exist.
    for name, view in _views(memory, layout).items():
        view[...] = arrays[name]


def _views(memory: mmap.mmap, layout: Layout) -> dict[str, np.ndarray]:
    return {
        name: np.ndarray(shape, np.dtype(dtype), buffer=memory, offset=offset)
        for name, shape, dtype, offset in layout
    }
