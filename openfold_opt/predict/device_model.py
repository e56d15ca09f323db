"""The model on the device and its CUDA graphs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.predict.forward import PassFunction
from openfold_opt.predict.graphs import PassGraphs
from openfold_opt.predict.schedule.plan import PredictionPlan
from openfold_opt.train.graphs.recorder import CaptureError, CudaRecorder

REMEDY = "predict without graphs (--graphs off)"


class DeviceModel:
    """Holds one of several models on the device, because their memory plans count only one.

    Weights of the same sizes are copied to the same memory, so that all of them use its graphs.
    """

    def __init__(
        self, models: Sequence[AlphaFold], device: torch.device, *, copies_weights: bool
    ) -> None:
        """Load no model yet.

        Args:
            models: on the host, in the precision of the device.
            device: the device.
            copies_weights: false on a CPU, which has no second memory.
        """
        self._models, self._device, self._copies_weights = models, device, copies_weights
        self._index: int | None = None
        self._model: AlphaFold | None = None
        self._graphs: PassGraphs | None = None
        self._has_failed = False

    def load(self, index: int) -> AlphaFold:
        """Return a model on the device. It replaces the one that was there."""
        source = self._models[index]
        if not self._copies_weights:
            self._model = source
        elif self._model is None or self._model.config != source.config:
            self._release_graphs()
            self._model = None
            # A single model needs no copy on the host.
            moved = source if len(self._models) == 1 else copy.deepcopy(source)
            self._model = moved.to(self._device)
        elif index != self._index:
            self._model.load_state_dict(source.state_dict())
        self._index = index
        return self._model

    def passes(
        self, batch: FeatureBatch, plan: PredictionPlan, *, has_graphs: bool
    ) -> tuple[PassFunction | None, tuple[str, ...]]:
        """Return how the loaded model computes the passes of a chain, and warnings.

        None: without graphs. Graphs are released if the chain has none, because its plan does not
        count them. After a failed capture no chain has graphs.
        """
        if not has_graphs or self._has_failed:
            self._release_graphs()
            return None, ()
        if self._graphs is None:
            self._graphs = PassGraphs(self._model, CudaRecorder(self._device, remedy=REMEDY))
        try:
            return self._graphs.passes(batch, plan), ()
        except CaptureError as error:
            self._has_failed = True
            self._release_graphs()
            return None, (f"this chain and all later ones are predicted without graphs: {error}",)

    def _release_graphs(self) -> None:
        if self._graphs is not None:
            self._graphs.release()
        # New graphs get a new memory pool.
        self._graphs = None
