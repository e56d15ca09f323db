"""An axis of processes: the ranks that share one kind of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AxisGroup:
    """The ranks along one axis of the process mesh, seen from this process.

    An axis of size 1 has no process group: every collective over it is the identity and never
    touches torch.distributed, so the same forward serves one device and many.
    """

    name: str
    """What is spread along the axis: "data", "dap" or "world"."""
    rank: int
    """Position of this process along the axis, 0 .. size - 1."""
    size: int
    process_group: Any = None
    """torch.distributed.ProcessGroup, or None when size is 1."""

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
