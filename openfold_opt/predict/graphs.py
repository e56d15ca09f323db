"""CUDA graphs of passes: one per range of lengths, replayed for each pass and each chain.

A graph runs on static memory: the features of one pass and the state that one pass leaves to the
next, both padded to the end of the range. Masks exclude the padding, so it changes no result. The
host fills the features, launches the graph, and reads its results between two passes.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.predict.forward import PassFunction, PassResult, compute_pass
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.predict.schedule.trunk import PreviousPass, TrunkState
from openfold_opt.predict.traced_prediction import ChainSizes
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.graphs.evaluation_graphs import RANGE_RESIDUES, fill_features
from openfold_opt.train.graphs.graph_memory import BYTES_PER_NODE
from openfold_opt.train.graphs.recorder import Capture, Recorder

GraphUse = Literal["auto", "on", "off"]
"""Chains that use graphs: up to LONGEST_RESIDUES, all, or none."""
LONGEST_RESIDUES = 512
"""Longest chain that uses graphs by default. A pass of AlphaFold2 launches about 10,000 kernels,
which takes the host 0.04 s at 4 microseconds each and 0.3 s at 30. The GPU is expected to take
0.05 s at 128 residues, 0.14 s at 256, 0.42 s at 512 and 1.5 s at 1,024 (H100, bf16)."""
KEPT_GRAPHS = 4
"""Number of shapes that are kept. Chains are sorted by length, so a range does not return."""


def obstacle_to_graphs(
    device: torch.device, dap_size: int, configs: Sequence[ModelConfig]
) -> str | None:
    """Say why no chain can use graphs; None if chains can.

    Args:
        device: of the model.
        dap_size: number of ranks that share a chain.
        configs: sizes of the models that predict each chain.
    """
    if device.type != "cuda":
        return "the device is not a GPU"
    if dap_size > 1:
        return f"{dap_size} ranks share each chain"
    if len(set(configs)) > 1:
        return "the weights are of models with different sizes, and only one is on the GPU"
    return None


def longest_with_graphs(use: GraphUse, obstacle: str | None) -> int:
    """Return the length of the longest chain that uses graphs; 0: no chain does.

    Raises:
        ValueError: graphs are requested and there is an obstacle.
    """
    if use not in get_args(GraphUse):
        raise ValueError(f"graphs is {use!r}; expected one of {', '.join(get_args(GraphUse))}")
    if use == "on" and obstacle is not None:
        raise ValueError(f"CUDA graphs (on) are not possible: {obstacle}; use auto or off")
    if use == "off" or obstacle is not None:
        return 0
    return LONGEST_RESIDUES if use == "auto" else sys.maxsize


def graph_length(num_residues: int) -> int:
    """Return the end of the range of lengths of a chain."""
    return -(-num_residues // RANGE_RESIDUES) * RANGE_RESIDUES


def graph_bytes(
    config: ModelConfig,
    sizes: ChainSizes,
    *,
    pair_bytes: int,
    forward_bytes: int,
    num_operators: int,
) -> int:
    """Return the memory that graphs take on the device in addition to the tensors of a forward.

    Args:
        config: sizes of the model.
        sizes: of the features; all kept graphs are counted with them.
        pair_bytes: bytes of the pair representation.
        forward_bytes: peak of a forward.
        num_operators: operators of a pass, each a node of a graph.
    """
    channels = config.c_m + 2 * config.c_s + 37 * 3 + 3
    state = pair_bytes + 4 * sizes.num_residues * channels
    features = replace(sizes, num_passes=1).feature_bytes()
    # The pool of the graphs stays reserved while a chain of another shape is computed without one.
    pool = forward_bytes - pair_bytes
    return KEPT_GRAPHS * (features + state + BYTES_PER_NODE * num_operators) + pool - pair_bytes


class PassGraphs:
    """The graphs of one model, which all use the same memory pool.

    The first chain of a shape is computed without a graph, which is the warm-up that a capture
    needs. The second one is captured. So a shape that one chain has costs nothing.
    """

    def __init__(self, model: AlphaFold, recorder: Recorder) -> None:
        """model: on the device. Its parameters keep their memory as long as there are graphs."""
        self._model, self._recorder = model, recorder
        self._graphs: dict[Hashable, _PassGraph] = {}

    def passes(self, batch: FeatureBatch, plan: PredictionPlan) -> PassFunction:
        """Return a function that computes the passes of a chain.

        Use it until the next call: the results, except positions, are overwritten.

        Args:
            batch: features of the chain, on any device.
            plan: for the length of the range. A rank predicts the chain alone.

        Raises:
            CaptureError: an operation cannot be captured. Release the graphs and do not use them.
        """
        shapes = _padded_shapes(batch.at_pass(0))
        key = tuple(shapes.items())
        graph = self._graphs.pop(key, None)
        if graph is None:
            while len(self._graphs) >= KEPT_GRAPHS:
                # Dictionaries are ordered: the first shape is the one that was not used longest.
                self._graphs.pop(next(iter(self._graphs))).release()
            graph = _PassGraph(self._model, shapes, plan)
        else:
            graph.capture(self._recorder)
        self._graphs[key] = graph
        return partial(graph.run, recorder=self._recorder)

    def release(self) -> None:
        """Release all graphs and their memory."""
        while self._graphs:
            self._graphs.popitem()[1].release()


class _PassGraph:
    """The static memory of the passes of one shape, and their graph."""

    def __init__(
        self, model: AlphaFold, shapes: dict[str, tuple[int, ...]], plan: PredictionPlan
    ) -> None:
        self._model = model
        self._plan = replace(plan, skip_missing_templates=False)
        self._result = _static_result(model, shapes)
        self._capture: Capture | None = None

    def run(
        self, features: FeatureBatch, previous: PreviousPass | None, *, recorder: Recorder
    ) -> PassResult:
        """Compute a pass; `previous` is that of the last result, or None in the first pass."""
        fill_features(self._result.residues, features)
        if previous is None:
            # The first pass recycles zeros (Algorithm 2, line 1).
            state = self._result.previous()
            for x in (state.state.z, state.state.first_row, state.pseudo_beta):
                x.zero_()
        if self._capture is None:
            recorder.warm_up_run(self._compute)
        else:
            self._capture.replay()
        # The next pass overwrites the positions, with which its own are compared.
        return replace(self._result, positions=self._result.positions.clone())

    def capture(self, recorder: Recorder) -> None:
        """Capture a pass, if it is not captured. Raises CaptureError."""
        if self._capture is None:
            self._capture = recorder.record(self._compute)

    def release(self) -> None:
        """Release the graph."""
        if self._capture is not None:
            self._capture.reset()
        self._capture = None

    def _compute(self) -> None:
        """Compute a pass from the static memory and write its outputs there."""
        static = self._result
        new = compute_pass(self._model, static.residues, static.previous(), self._plan)
        for name in ("states", "positions", "pseudo_beta"):
            getattr(static, name).copy_(getattr(new, name))
        # z was updated in place.
        for name in ("first_row", "s"):
            getattr(static.trunk, name).copy_(getattr(new.trunk, name))


def _padded_shapes(features: FeatureBatch) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the features of a pass, with residues padded to the end of a range."""
    shapes = {}
    for name, spec in FEATURES.items():
        shape = list(getattr(features, name).shape)
        if "N_res" in spec.shape:
            dim = len(shape) - len(spec.shape) + spec.shape.index("N_res")
            shape[dim] = graph_length(shape[dim])
        shapes[name] = tuple(shape)
    return shapes


def _static_result(model: AlphaFold, shapes: dict[str, tuple[int, ...]]) -> PassResult:
    """Allocate the features and the outputs of a pass."""
    weight, config = model.input_embedder.linear_relpos.weight, model.config
    batch, num_res = shapes["seq_mask"]

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(batch, *shape, dtype=dtype, device=weight.device)

    features = {
        name: torch.zeros(
            shape, dtype=getattr(torch, FEATURES[name].dtype.name), device=weight.device
        )
        for name, shape in shapes.items()
    }
    return PassResult(
        trunk=TrunkState(
            z=zeros(num_res, num_res, config.c_z, dtype=weight.dtype),
            first_row=zeros(num_res, config.c_m),
            s=zeros(num_res, config.c_s),
        ),
        states=zeros(num_res, config.c_s),
        positions=zeros(num_res, 37, 3),
        pseudo_beta=zeros(num_res, 3),
        residues=FeatureBatch(**features),
    )
