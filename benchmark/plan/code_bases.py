"""What is known of each code base that a plan can be made for, from its source or publications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE

Graphs = Literal["none", "part", "all"]


@dataclass(frozen=True, kw_only=True)
class HostLaunches:
    """Launches of a code base's own source, which may be more than those of the traced kernels."""

    gradient: int
    """Last forward pass, losses and backward pass, without recomputation."""
    recomputation: int
    """What the recomputation of all blocks adds."""
    iteration: int
    """A recycling iteration."""


@dataclass(frozen=True, kw_only=True)
class CodeBase:
    """Properties of an implementation that determine its step, in addition to the counts."""

    graphs_by_dap: Mapping[int, Graphs]
    """DAP size -> how much of a step CUDA graphs replay; the largest size at most the DAP's."""
    gradient_bytes: int
    """Bytes of a gradient in the all-reduce, per parameter."""
    bucket_bytes: int
    optimizer_launches: int
    """Launches of clipping, Adam and the running average, once per optimizer step."""
    optimizer_bytes: int
    """Bytes that they move, per parameter."""
    gradient_launches: int
    """Launches of the host for the gradients of the parameters after a backward pass.

    They show only if that pass is one graph, which returns all gradients at once.
    """
    host_launches: HostLaunches | None
    """What the host launches where no graph does; None: what was traced."""
    overlaps_up_to_dap: int
    """Largest DAP size whose collectives overlap with computation.

    0: they never do. This project sends the small tensors of larger sizes in one piece
    (`ParallelConfig.dap_min_chunk_bytes`), and little else can run meanwhile.
    """
    loads_in_order: bool
    evaluates_in_order: bool
    """Whether chains are assigned to ranks in the order of the data set, not by their length."""
    evaluates_in_float32: bool
    """Whether an evaluation has float32 activations although training has bfloat16 ones."""
    is_fitted: bool
    """Whether a factor for its compute is fitted to published results."""

    def graphs(self, dap: int) -> Graphs:
        """Return how much of a step CUDA graphs replay."""
        return self.graphs_by_dap[max(size for size in self.graphs_by_dap if size <= dap)]

    def has_gradients_at_once(self, dap: int) -> bool:
        """Return whether all gradients become known together, at the end of the backward pass.

        So it is if that pass is one graph, and the reduction of gradients is not a part of it.
        """
        return self.gradient_launches > 0 and self.graphs(dap) == "all"


_NUM_TENSORS = 5_044
"""Parameter tensors of the model of the benchmark."""

CODE_BASES: Mapping[str, CodeBase] = {
    PROJECT: CodeBase(
        graphs_by_dap={1: "all"},
        gradient_bytes=4,
        bucket_bytes=64 * 2**20,
        optimizer_launches=3,
        optimizer_bytes=4 * 10,
        gradient_launches=0,
        host_launches=None,
        overlaps_up_to_dap=4,
        loads_in_order=False,
        evaluates_in_order=False,
        evaluates_in_float32=False,
        is_fitted=False,
    ),
    REFERENCE: CodeBase(
        graphs_by_dap={1: "none"},
        gradient_bytes=4,
        bucket_bytes=25 * 2**20,
        optimizer_launches=71_749,
        optimizer_bytes=4 * 30,
        gradient_launches=_NUM_TENSORS,
        host_launches=HostLaunches(gradient=46_640, recomputation=9_688, iteration=15_184),
        overlaps_up_to_dap=0,
        loads_in_order=True,
        evaluates_in_order=True,
        evaluates_in_float32=False,
        is_fitted=True,
    ),
    NVIDIA: CodeBase(
        graphs_by_dap={1: "none", 2: "part", 4: "all"},
        gradient_bytes=2,
        bucket_bytes=25 * 2**20,
        optimizer_launches=100,
        optimizer_bytes=4 * 10,
        gradient_launches=2 * _NUM_TENSORS,
        host_launches=None,
        overlaps_up_to_dap=0,
        loads_in_order=False,
        evaluates_in_order=False,
        evaluates_in_float32=True,
        is_fitted=True,
    ),
}
"""Sources:

- mlcommons_reference: DistributedDataParallel with its default buckets. Launches of the host:
  counted by `perf host`. Optimizer: what they leave of the 150,853 launches that ScaleFold counts
  in a step (recalled), with a mean of 1.5 recycling iterations. `perf host` has 65,591 with
  another version of PyTorch: one operation at a time for each of 5,044 tensors in Adam and the
  average, but not in clipping. Its source gives rank r of n the chains r, r + n and so on to
  evaluate.
- nvidia_v3.0: its submission captures the structure module alone without DAP, structure module
  and Evoformer stack at DAP 2, and a whole iteration from DAP 4 on. The model that is reduced is
  in bf16. Adam and the average are one kernel for many tensors. With DAP, a hook multiplies the
  gradient of each tensor, and DistributedDataParallel copies each into a bucket. It evaluates the
  float32 average, without bf16, and assigns the longest chains first.
"""
