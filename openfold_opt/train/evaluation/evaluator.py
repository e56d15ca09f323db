"""Evaluation of the averaged weights on whole chains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from openfold_opt.losses.lddt import lddt
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.graphs.evaluation_graphs import EvaluationGraphs

CA = 1
"""Index of the alpha carbon among the 37 atoms."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When to evaluate, and the score that ends the run."""

    category: ClassVar[str] = "mathematical"

    every_steps: int = 40
    """Optimizer steps between evaluations."""
    target_lddt_ca: float = 0.8
    """The run succeeds when the mean lDDT-Ca over the chains reaches this value."""

    def __post_init__(self) -> None:
        if self.every_steps < 1 or not 0.0 < self.target_lddt_ca <= 1.0:
            raise ValueError(f"expected every_steps >= 1 and 0 < target_lddt_ca <= 1, found {self}")


@dataclass(frozen=True, kw_only=True)
class ChainScore:
    """lDDT-Ca of one complete chain, 0 to 1."""

    chain_id: str
    lddt_ca: float
    num_residues: int


class ChainSource(Protocol):
    """The part of OpenData that evaluation uses."""

    def evaluation_chains(
        self, *, device: torch.device, together: bool
    ) -> Iterable[tuple[str, Mapping[str, Tensor]]]: ...


class Evaluator:
    """Evaluates this rank's chains with the averaged weights and gathers the scores of all ranks.

    It holds a second model whose parameters share the memory of the weight average, so evaluation
    neither changes nor copies the weights in training. Parameters that are trained in bfloat16 are
    rounded copies of the average.
    """

    def __init__(
        self,
        model: nn.Module,
        averaged: Mapping[str, Tensor],
        *,
        plan: ExecutionPlan,
        dap: AxisGroup = AxisGroup.single("dap"),
    ) -> None:
        """Build the evaluation model.

        averaged: float32 weights by name, whose memory the model shares. plan: for chains that this
        rank evaluates alone. dap: the ranks that evaluate long chains jointly.
        """
        self._model = copy.deepcopy(model).eval()
        self._plan = plan
        self._joint_plan = replace(plan, dap=dap)
        self._graphs: EvaluationGraphs | None = None
        self._rounded: list[tuple[nn.Parameter, Tensor]] = []
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
            if parameter.dtype == averaged[name].dtype:
                parameter.data = averaged[name]
            else:
                parameter.data = torch.empty_like(parameter)
                self._rounded.append((parameter, averaged[name]))
        self.device = next(iter(averaged.values())).device

    def use_graphs(self, graphs: EvaluationGraphs) -> None:
        """Score chains with these graphs of `compute` from now on, if they fit one of them."""
        self._graphs = graphs

    def release_graphs(self) -> None:
        """Release the graphs. Chains are scored without graphs from now on."""
        if self._graphs is not None:
            self._graphs.release()
            self._graphs = None

    def score(self, features: Mapping[str, Tensor], *, together: bool = False) -> float:
        """Return the lDDT-Ca of one chain.

        features: a batch of one. together: evaluate jointly with the other ranks of the DAP group.
        """
        batch = FeatureBatch.from_features(features).to(self.device, non_blocking=True)
        if together:
            return float(self.compute(batch, self._joint_plan)[0])
        per_chain = None if self._graphs is None else self._graphs.score(batch)
        return float((per_chain if per_chain is not None else self.compute(batch))[0])

    @torch.no_grad()
    def compute(self, batch: FeatureBatch, plan: ExecutionPlan | None = None) -> Tensor:
        """Return the lDDT-Ca of the chains of a batch, [batch], without synchronizing the device.

        batch: on the device. plan: None uses the plan for chains that this rank evaluates alone.
        """
        for parameter, averaged in self._rounded:
            parameter.copy_(averaged)
        outputs = self._model(
            batch, plan or self._plan, num_recycling_iterations=batch.num_passes - 1, dropout=None
        )
        return lddt_ca(outputs.final_atom_positions, batch.all_atom_positions, batch.all_atom_mask)

    def run(
        self, chains: ChainSource, axis: AxisGroup, *, note: Callable[..., None] = lambda **_: None
    ) -> tuple[ChainScore, ...]:
        """Return the scores of the chains of all ranks of the axis, sorted by chain id.

        chains: those of this rank. note: called for each chain, for the heartbeat. All ranks return
        the same.
        Raises NonFiniteError if a score is not finite.
        """
        scores = {}
        # The jointly evaluated chains come first, since all ranks of a group must take part.
        for together in (True, False):
            for chain_id, features in chains.evaluation_chains(
                device=self.device, together=together
            ):
                note(activity=f"evaluating {chain_id}")
                lddt_ca = self.score(features, together=together)
                num_residues = int(features["seq_length"].sum())
                scores[chain_id] = ChainScore(
                    chain_id=chain_id, lddt_ca=lddt_ca, num_residues=num_residues
                )
        # Several ranks have the score of a chain that they evaluated jointly.
        all_scores = {
            chain_id: score
            for part in gather_objects(scores, axis)
            for chain_id, score in part.items()
        }.values()
        invalid = [score.chain_id for score in all_scores if not 0.0 <= score.lddt_ca <= 1.0]
        if invalid:
            raise NonFiniteError(
                f"lDDT-Ca of {len(invalid)} chains is not a number from 0 to 1 "
                f"({', '.join(invalid[:5])}); the averaged weights predict coordinates that are "
                "not finite"
            )
        return tuple(sorted(all_scores, key=lambda score: score.chain_id))


def lddt_ca(predicted: Tensor, true: Tensor, atom_mask: Tensor) -> Tensor:
    """Return the lDDT of the alpha carbons per chain, 0 to 1 (AF2 suppl. 1.9.6 without rounding).

    predicted, true: [batch, N_res, 37, 3] angstrom; atom_mask: [batch, N_res, 37].
    Returns [batch] float32, NaN where a predicted coordinate is not finite.
    """
    score = lddt(
        predicted[..., CA, :].float(),
        true[..., CA, :].float(),
        atom_mask[..., CA].float(),
        per_residue=False,
    )
    # Comparisons with NaN are false, so lddt would return a low score instead of NaN.
    is_finite = torch.isfinite(predicted).all(-1).all(-1).all(-1)
    return torch.where(is_finite, score, torch.nan)


def mean_score(scores: tuple[ChainScore, ...]) -> float:
    """Return the result of an evaluation: the mean over chains, unweighted by length."""
    return sum(score.lddt_ca for score in scores) / len(scores)
