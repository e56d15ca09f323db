"""One axis of the process mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch.distributed as dist


@dataclass(frozen=True, kw_only=True)
class AxisGroup:
    """The ranks along one axis of the process mesh, seen from this process.

    An axis of size 1 has no process group: every collective over it is the identity and never
    touches torch.distributed, so the same forward serves one device and many.
    """

    name: str
    """Name of the axis: "data", "dap", "training" or "world"."""
    rank: int
    """Position of this process along the axis, 0 .. size - 1."""
    size: int
    process_group: dist.ProcessGroup | Literal["fake"] | None = None
    """None when size is 1; "fake" for an axis without processes."""
    overlaps: bool = True
    """Whether collectives overlap with computation; False waits for each one when it is started.
    The results are bit-identical."""
    num_chunks: int = 2
    """Number of chunks of a tensor, or of groups of templates, that are computed and communicated
    one after the other. An axis of size 1 makes no chunks."""
    min_chunk_bytes: int = 0
    """Fewest bytes that this rank sends in the transfer of a chunk. A tensor has fewer chunks than
    num_chunks if they would be smaller."""
    on_launch: Callable[[str, str, int], None] | None = None
    """Called for each collective of the model with the name of the tensor, the kind of collective
    and the bytes that this rank sends to other ranks."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.rank < self.size:
            raise ValueError(
                f"axis {self.name!r}: found rank {self.rank} of size {self.size}; "
                "expected 0 <= rank < size"
            )
        if self.size > 1 and self.process_group is None:
            raise ValueError(
                f"axis {self.name!r} has size {self.size} but no process group; build it with "
                "openfold_opt.parallel.context.build_parallel_context"
            )

    @classmethod
    def single(cls, name: str) -> AxisGroup:
        """Return an axis of size 1."""
        return cls(name=name, rank=0, size=1)

    @classmethod
    def fake(cls, name: str, *, size: int) -> AxisGroup:
        """Return an axis without processes, for tensors on device "meta".

        Collectives over it compute shapes only and communicate nothing.
        """
        return cls(name=name, rank=0, size=size, process_group="fake")

    def without_chunks(self) -> AxisGroup:
        """Return the same axis with num_chunks=1, for a tensor that is one of several groups."""
        return replace(self, num_chunks=1)

    def with_chunks_of(self, shard_bytes: int) -> AxisGroup:
        """Return the same axis with fewer chunks, if those of a tensor would be too small.

        shard_bytes: bytes of the shard of this rank, of which a change of layout sends all except
            the part that this rank keeps.
        """
        if self.min_chunk_bytes == 0:
            return self
        sent_bytes = (self.size - 1) * shard_bytes // self.size
        return replace(
            self, num_chunks=min(self.num_chunks, max(1, sent_bytes // self.min_chunk_bytes))
        )

    def shard_length(self, length: int) -> int:
        """Return ceil(length / size), the length of a shard; the last shards may be padded."""
        return -(-length // self.size)
