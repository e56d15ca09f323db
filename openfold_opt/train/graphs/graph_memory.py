"""Estimate the memory that CUDA graphs take in addition to the tensors of a step.

Each node of a graph (a kernel, a copy, a collective) takes memory on the device. The nodes are
counted by running the model on PyTorch's device "meta", without a GPU. The estimate does not
include the memory pool of the graphs: it holds the tensors that one micro-batch saves for its
backward pass, once for all graphs, and eager work frees its memory before the first capture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from openfold_opt.kernels.interface import KernelConfig, KernelSet
from openfold_opt.kernels.select import build_kernel_set, uses_triton
from openfold_opt.kernels.workspace import FUSED_NAMESPACE
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.dropout import DropoutState
from openfold_opt.model.plan import ALL_BLOCKS, ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.evaluation_graphs import lengths_to_capture
from openfold_opt.train.precision import meta_model, meta_training_model
from openfold_opt.train.synthetic_features import meta_batch

BYTES_PER_NODE = 10_000
"""An assumption that was not measured with this code: 17 GB for 1.7 million nodes."""

META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class NodeCounts:
    """Numbers of graph nodes on a rank that trains and evaluates."""

    iteration: int
    """Nodes of a recycling iteration in training."""
    gradient: int
    """Nodes of a forward and backward pass without recycling, with all blocks recomputed."""
    evaluation: int
    """Nodes of a recycling iteration of a chain that one rank evaluates."""

    def of_run(self, config: RunConfig) -> int:
        """Return the nodes of all graphs of a run.

        There is one graph per number of recycling iterations and one per range of lengths. An
        evaluation has the maximum number of recycling iterations.
        """
        num_passes = config.data.num_passes
        training = sum(self.gradient + number * self.iteration for number in range(num_passes))
        return training + len(_evaluation_lengths(config)) * num_passes * self.evaluation


def graph_memory_bytes(config: RunConfig, kernels: KernelConfig) -> int:
    """Return the memory of the nodes and static inputs of all graphs of a run, on one rank.

    kernels: a resolved KernelConfig.
    """
    nodes = count_nodes(config, kernels).of_run(config)
    return BYTES_PER_NODE * nodes + _input_bytes(config)


def count_nodes(config: RunConfig, kernels: KernelConfig) -> NodeCounts:
    """Count the nodes with one and with two Evoformer blocks, and extrapolate to all blocks."""
    num_further_blocks = config.model.evoformer_stack.num_blocks - 1
    one, two = (_count_blocks(with_evoformer_blocks(config, n), kernels) for n in (1, 2))
    counts = {
        name: count + num_further_blocks * (vars(two)[name] - count)
        for name, count in vars(one).items()
    }
    return NodeCounts(**counts)


def _count_blocks(config: RunConfig, kernels: KernelConfig) -> NodeCounts:
    """Count the nodes of the model as configured, without extrapolation."""
    model, buffer = meta_training_model(config.model, config.precision)
    evaluated = meta_model(config.model, config.precision)
    batch = meta_batch(config.data, batch_size=config.local_batch_size, num_passes=1)
    loss = AlphaFoldLoss(config.loss)
    kernel_set = build_kernel_set(kernels, META, config.model.kernel_shapes())
    scalar = torch.zeros((), dtype=torch.int64, device=META)
    slots = torch.zeros(config.local_batch_size, dtype=torch.int64, device=META)
    dropout = DropoutState(seed=scalar, step=scalar, slots=slots) if config.use_dropout else None

    def count(model: AlphaFold, axis: AxisGroup, *, has_gradient: bool) -> int:
        def work(plan: ExecutionPlan) -> None:
            outputs = model(batch, plan, num_recycling_iterations=0, dropout=dropout)
            if has_gradient:
                loss(outputs, batch.at_pass(0)).loss.backward()
                buffer.collect_gradients()

        with torch.set_grad_enabled(has_gradient):
            return _count_work(work, kernel_set, axis, uses_triton(kernels, META))

    axis = counted_axis(config.parallel, size=config.parallel.dap_size)
    return NodeCounts(
        iteration=count(model, axis, has_gradient=False),
        gradient=count(model, axis, has_gradient=True),
        evaluation=count(evaluated, AxisGroup.single("dap"), has_gradient=False),
    )


def _count_work(
    work: Callable[[ExecutionPlan], None], kernels: KernelSet, axis: AxisGroup, has_triton: bool
) -> int:
    """Count kernel launches and collectives of work on meta tensors."""
    counter = LaunchCounter()
    axis = replace(axis, on_launch=lambda what, kind, sent_bytes: counter.add())
    plan = ExecutionPlan(kernels=kernels, dap=axis, num_recomputed_blocks=ALL_BLOCKS)
    with ExitStack() as stack:
        if has_triton:
            # Import Triton only if its kernels are used.
            from openfold_opt.kernels.triton.launching import launches_on_meta

            stack.enter_context(launches_on_meta(lambda *launch: counter.add()))
        stack.enter_context(torch.device("meta"))
        stack.enter_context(counter)
        work(plan)
    return counter.count


class LaunchCounter(TorchDispatchMode):
    """Counts PyTorch operators that launch a kernel, and other launches passed to `add`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def add(self) -> None:
        """Count a launch that is not an operator of PyTorch."""
        self.count += 1

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> object:
        if func.namespace != FUSED_NAMESPACE and not launches_nothing(func):
            self.add()
        return func(*args, **(kwargs or {}))


def launches_nothing(func: OpOverload) -> bool:
    """Return whether an operator only creates a view or allocates memory."""
    returns = func._schema.returns
    is_view = any(x.alias_info is not None and not x.alias_info.is_write for x in returns)
    name = func._schema.name
    names = ("aten::detach", "aten::_unsafe_view", "aten::lift_fresh")
    return is_view or "empty" in name or name in names


def with_evoformer_blocks(config: RunConfig, num_blocks: int) -> RunConfig:
    """Return the configuration with another number of Evoformer blocks."""
    stack = replace(config.model.evoformer_stack, num_blocks=num_blocks)
    return replace(config, model=replace(config.model, evoformer_stack=stack))


def _evaluation_lengths(config: RunConfig) -> list[int]:
    return lengths_to_capture(config.selection.validation_max_length or config.data.crop_size)


def _input_bytes(config: RunConfig) -> int:
    """Return the bytes of the static inputs: a micro-batch, and a chain per range of lengths."""
    num_passes = config.data.max_recycling_iterations + 1

    def of_batch(length: int, batch_size: int) -> int:
        data = replace(config.data, crop_size=length)
        batch = meta_batch(data, batch_size=batch_size, num_passes=num_passes)
        return sum(x.nbytes for x in vars(batch).values())

    evaluation = sum(of_batch(length, 1) for length in _evaluation_lengths(config))
    return evaluation + of_batch(config.data.crop_size, config.local_batch_size)
