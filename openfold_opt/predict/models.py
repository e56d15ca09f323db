"""What the run of many chains needs of loaded weights, memory plans and predictions.

predictor.py implements `Models`, memory_plan.py has the plans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.run_settings import WeightsFacts

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainInput, FeatureSettings, PreparedChain
    from openfold_opt.predict.forward import Prediction, RowSinks


class ChainPlan(Protocol):
    """The memory plan of one chain and one set of weights (memory_plan.py)."""

    fits: bool
    peak_bytes: int
    seconds: float | None
    """Expected time of the forward; None if unknown."""

    def as_json(self) -> dict[str, object]:
        """Return the entry of the record."""

    def summary(self) -> list[str]:
        """Return lines with the peak and the expected time."""

    def refusal(self) -> str:
        """Say why the chain does not fit, and how many GPUs would do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TimedPrediction:
    """A prediction with what it took."""

    prediction: Prediction
    seconds: float
    """Synchronized time of the forward."""
    peak_bytes: int
    warnings: tuple[str, ...] = ()


class Models(Protocol):
    """One or several sets of weights, ready to predict (predictor.py)."""

    names: tuple[str, ...]
    dap: AxisGroup
    device: torch.device
    device_name: str
    """For logs: the model of the GPU, or cpu."""
    dtype: str
    """"fp32" or "bf16"."""
    notes: tuple[str, ...]
    """What the user should know about weights and inputs, printed at the start."""
    prepare: Callable[[ChainInput, FeatureSettings], PreparedChain]
    """A function of a module: worker processes call it."""

    def weights_facts(self) -> tuple[WeightsFacts, ...]:
        """Return name, path, kind, SHA-256 and settings of every set of weights."""

    def cost(self, chain: ChainInput) -> float:
        """Return a number that is proportional to the expected time of a chain, and grows with
        its length."""

    def has_pae(self, index: int) -> bool:
        """Return whether a set of weights predicts aligned errors and a TM-score."""

    def num_passes(self, index: int) -> int:
        """Return the maximum number of passes: recycling iterations and the last one."""

    def feature_settings(self, index: int) -> FeatureSettings:
        """Return how features are made for a set of weights."""

    def plan(self, chain: ChainInput, index: int) -> ChainPlan:
        """Return the memory plan of a chain; a second call is cheap."""

    def predict_features(
        self,
        batch: FeatureBatch,
        index: int,
        *,
        plan: ChainPlan,
        sinks: RowSinks,
        on_pass: Callable[[int, float | None], None] | None,
    ) -> TimedPrediction:
        """Predict one chain with one set of weights. All ranks of the group must call this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainJob:
    """A chain to predict and the stem of its files."""

    chain: ChainInput
    stem: str


@dataclass(frozen=True, kw_only=True)
class ChainOptions:
    """What is written for each chain."""

    run_id: str
    """Part of every record (RunFacts.run_id)."""
    rank_by: str = "plddt"
    """"plddt" or "ptm"."""
    save_pae: bool = True
    """Whether the PAE is written if the weights predict it."""
    pae_json: bool | None = None
    """Whether the PAE is also written as JSON; None: up to MAX_RESIDUES_OF_PAE_JSON."""
    save_distogram: bool = False
    save_embeddings: bool = False
    """Whether the single and pair representations are written."""
    relax: str = "none"
    """Which structures are relaxed: "best", "all" or "none"."""
    device: torch.device = torch.device("cpu")
    """Of the predictions; relaxation uses it too."""
    pictures: bool = True
    """Whether a picture of the best structure is drawn."""
    seed: int = 0
    """For records and structures."""
    num_workers: int = 1
    """Processes that prepare features."""
