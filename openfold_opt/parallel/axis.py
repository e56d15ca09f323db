"""An axis of processes: the ranks that share one kind of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AxisGroup:
    """The ranks along one axis of the process mesh, seen from this process.

    An axis of size 1 has no process group: every collective over it is the identity and never
    touches torch.distributed, so the same forward serves one device and many.
    """

    name: str
    """What is spread along the axis: "data", "dap", "training" or "world"."""
    rank: int
    """Position of this process along the axis, 0 .. size - 1."""
    size: int
    process_group: Any = None
    """torch.distributed.ProcessGroup, or None when size is 1."""
    overlaps: bool = True
    """Whether what was started runs behind the work that follows; if not, it is waited for at once. The results are the same bits."""
    num_chunks: int = 2
    """Pieces of a tensor, or groups of templates, that travel one behind the work on the other; an axis of size 1 cuts nothing."""
    on_launch: Callable[[str, str, int], None] | None = None
    """Told of each collective of the model: what travels, the kind of collective, and the bytes that this rank sends to others."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.rank < self.size:
            raise ValueError(
                f"axis {self.name!r}: rank {self.rank} of size {self.size}; expected 0 <= rank < size"
            )
        if self.size > 1 and self.process_group is None:
            raise ValueError(
                f"axis {self.name!r} has size {self.size} but no process group; build it with "
                "openfold_opt.parallel.context.build_parallel_context"
            )

    @classmethod
    def single(cls, name: str) -> AxisGroup:
        """The axis of a process that is alone."""
        return cls(name=name, rank=0, size=1)

    @classmethod
    def imagined(cls, name: str, *, size: int) -> AxisGroup:
        """An axis without processes, for tensors on device "meta": they have shapes and no values, and nothing travels."""
        return cls(name=name, rank=0, size=size, process_group="imagined")

    def uncut(self) -> AxisGroup:
        """The same axis for one of several parts that travel by themselves, of which no pieces are made."""
        return replace(self, num_chunks=1)

    def shard_length(self, length: int) -> int:
        """Length of one rank's part of a dim of `length`: the last parts are padded where it does not divide."""
        return -(-length // self.size)
