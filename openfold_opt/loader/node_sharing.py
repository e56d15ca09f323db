"""Sharing of batches between the ranks of a node that train on the same samples.

The ranks of a DAP group read the same stream. On each node the first of them has workers; the
others receive its deliveries in shared memory, over Unix sockets. If a group spans nodes, each node
prepares the batches once. The batches of the nodes are then equal only in strict order.
"""

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from openfold_opt.loader.array_transfer import receive_arrays, send_arrays_to_all
from openfold_opt.loader.batch import Delivery
from openfold_opt.loader.retry_policy import LoaderError, explain
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import gather_objects

CONNECT_SECONDS = 120.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SharedDeliveries:
    """Iterates over the same deliveries on every rank of an axis; all ranks must construct it.

    Args:
        make: builds the stream of deliveries; called only on the first rank of each node.
        axis: the ranks that share batches; nothing is sent if its size is 1.
        window: the reorder window of the stream.
        timeout_seconds: how long a rank waits for a batch from the first rank of its node.

    Raises:
        ValueError: the axis spans nodes and the window is not 0.
        LoaderError: from iteration, on all ranks of the node.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[Delivery]],
        *,
        axis: AxisGroup,
        window: int,
        timeout_seconds: float,
    ) -> None:
        self._channels: list[socket.socket] = []
        self._source: Iterator[Delivery] | None = None
        self._timeout_seconds = timeout_seconds
        if axis.size == 1:
            self._source = make()
            return
        # The null byte makes it an abstract address of Linux, which needs no file.
        address = f"\0openfold-loader-{secrets.token_hex(8)}"
        # Node and address of each rank of the axis.
        nodes = gather_objects((node_name(), address), axis)
        if window and len({node for node, _ in nodes}) > 1:
            raise ValueError(
                f"the {axis.name} group spans {len({node for node, _ in nodes})} nodes and "
                f"LoaderConfig.window is {window}: the nodes would see different samples; "
                "use window 0, or a dap_size that divides the ranks of a node"
            )
        node_ranks = [rank for rank, (node, _) in enumerate(nodes) if node == nodes[axis.rank][0]]
        if node_ranks[0] == axis.rank:
            self._channels = _accept(address, len(node_ranks) - 1, axis)
            self._source = make()
        else:
            gather_objects(None, axis)  # After this call the first ranks are listening.
            self._channels = [_connect(nodes[node_ranks[0]][1], timeout_seconds)]

    def __iter__(self) -> Iterator[Delivery]:
        return self

    def __next__(self) -> Delivery:
        return self._receive() if self._source is None else self._share(self._source)

    def _share(self, source: Iterator[Delivery]) -> Delivery:
        try:
            delivery = next(source)
        except (LoaderError, StopIteration) as end:
            with contextlib.suppress(OSError):
                send_arrays_to_all(self._channels, ("end", type(end), str(end)), {})
            raise
        if not self._channels:
            return delivery
        label = {name: value for name, value in vars(delivery).items() if name != "arrays"}
        try:
            send_arrays_to_all(self._channels, ("batch", label), delivery.arrays)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise LoaderError(
                f"a rank that shares this node's samples is gone ({error}); "
                "see the log of that rank"
            ) from error
        except OSError as error:
            raise LoaderError(
                f"cannot send samples to the other ranks of this node: {explain(error)}"
            ) from error
        return delivery

    def _receive(self) -> Delivery:
        try:
            (kind, *content), arrays = receive_arrays(self._channels[0])
        except TimeoutError:
            raise LoaderError(
                "the rank that prepares this node's samples sent nothing for "
                f"{self._timeout_seconds} s; see the log of that rank"
            ) from None
        except (EOFError, OSError):
            # OSError: another thread may have called `close` between the wake-up and the read.
            raise LoaderError(
                "the rank that prepares this node's samples is gone; see the log of that rank"
            ) from None
        if kind == "end":
            error_type, message = content
            raise error_type(message) if message else error_type()
        return Delivery(arrays=arrays, **content[0])

    def close(self) -> None:
        """Close the stream of this rank and the channels. Safe to call twice."""
        if self._source is not None:
            self._source.close()
        for channel in self._channels:
            with contextlib.suppress(OSError):
                # close() alone would not wake a thread that waits for a batch.
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()


def node_name() -> str:
    """Return a name shared by the processes of one Linux kernel in one network namespace."""
    return f"{_BOOT_ID.read_text().strip()} {Path('/proc/self/ns/net').readlink()}"


def _accept(address: str, num_channels: int, axis: AxisGroup) -> list[socket.socket]:
    """Listen on the address, and return the channels to the other ranks of the node."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen(max(num_channels, 1))
        # The other ranks make the same call and connect after it.
        gather_objects(None, axis)
        listener.settimeout(CONNECT_SECONDS)
        return [listener.accept()[0] for _ in range(num_channels)]


def _connect(address: str, timeout_seconds: float) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(CONNECT_SECONDS)
    channel.connect(address)
    channel.settimeout(timeout_seconds)
    return channel
