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
from openfold_opt.train.graphs.evaluation_graphs import EvaluationGraphs
from openfold_opt.train.observer import ChainScore
from openfold_opt.train.training_interval import NonFiniteError

CA = 1
"""Place of the alpha carbon among the 37 atoms."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """When to evaluate, and what ends the run."""

    category: ClassVar[str] = "mathematical"

    every_steps: int = 40
    """Optimizer steps between two evaluations."""
    target_lddt_ca: float = 0.8
    """The run succeeds when the mean lDDT-Ca over the chains reaches this."""

    def __post_init__(self) -> None:
        if self.every_steps < 1 or not 0.0 < self.target_lddt_ca <= 1.0:
            raise ValueError(f"expected every_steps >= 1 and 0 < target_lddt_ca <= 1, found {self}")


class ChainSource(Protocol):
    """OpenData, as far as evaluation is concerned."""

    def evaluation_chains(
        self, *, device: torch.device, together: bool
    ) -> Iterable[tuple[str, Mapping[str, Tensor]]]: ...


class Evaluator:
    """Runs the averaged weights over this rank's chains and collects the scores of all ranks.

    It holds a second model whose parameters share the memory of the average, so evaluation neither
    touches nor copies what is being trained. Parameters that are trained in bfloat16 are rounded copies
    of the average here too.
    """

    def __init__(
        self,
        model: nn.Module,
        averaged: Mapping[str, Tensor],
        *,
        plan: ExecutionPlan,
        dap: AxisGroup = AxisGroup.single("dap"),
    ) -> None:
        """averaged: float32 weights by name, whose memory is used; plan: for chains of this rank; dap: the ranks that share long chains."""
        self._model = copy.deepcopy(model).eval()
        self._plan = plan
        self._together = replace(plan, dap=dap)
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
        """From now on chains that fit one of the graphs, which are of `compute`, are scored by them."""
        self._graphs = graphs

    def release_graphs(self) -> None:
        """Scores are computed without graphs from now on."""
        if self._graphs is not None:
            self._graphs.release()
            self._graphs = None

    def score(self, features: Mapping[str, Tensor], *, together: bool = False) -> float:
        """lDDT-Ca of one chain; features: those of a batch of one. together: with the other ranks of the dap group."""
        batch = FeatureBatch.from_features(features).to(self.device, non_blocking=True)
        if together:
            return float(self.compute(batch, self._together)[0])
        per_chain = None if self._graphs is None else self._graphs.score(batch)
        return float((per_chain if per_chain is not None else self.compute(batch))[0])

    @torch.no_grad()
    def compute(self, batch: FeatureBatch, plan: ExecutionPlan | None = None) -> Tensor:
        """lDDT-Ca of the chains of a batch on the device [batch], as work for the device alone; plan: None takes this rank's own."""
        for parameter, averaged in self._rounded:
            parameter.copy_(averaged)
        outputs = self._model(
            batch, plan or self._plan, num_recycling_iterations=batch.num_passes - 1, dropout=None
        )
        return lddt_ca(outputs.final_atom_positions, batch.all_atom_positions, batch.all_atom_mask)

    def run(
        self, chains: ChainSource, axis: AxisGroup, *, note: Callable[..., None] = lambda **_: None
    ) -> tuple[ChainScore, ...]:
        """Scores of the chains of all ranks of the axis, sorted by chain id; the same on every rank.

        chains: of this rank. note: told of each chain. Raises NonFiniteError if a score is not finite.
        """
        scores = {}
        # all ranks of a group are here at the same time for the chains that they evaluate together
        for together in (True, False):
            for chain_id, features in chains.evaluation_chains(
                device=self.device, together=together
            ):
                note(activity=f"evaluating {chain_id}")
                lddt_ca, num_residues = (
                    self.score(features, together=together),
                    int(features["seq_length"].sum()),
                )
                scores[chain_id] = ChainScore(
                    chain_id=chain_id, lddt_ca=lddt_ca, num_residues=num_residues
                )
        # several ranks have the score of a chain that they evaluated together
        everyone = {
            chain_id: score
            for part in gather_objects(scores, axis)
            for chain_id, score in part.items()
        }.values()
        broken = [score.chain_id for score in everyone if not 0.0 <= score.lddt_ca <= 1.0]
        if broken:
            raise NonFiniteError(
                f"lDDT-Ca of {len(broken)} chains is not a number from 0 to 1 ({', '.join(broken[:5])}); "
                "the averaged weights give coordinates that are not finite"
            )
        return tuple(sorted(everyone, key=lambda score: score.chain_id))


def lddt_ca(predicted: Tensor, true: Tensor, atom_mask: Tensor) -> Tensor:
    """lDDT of the alpha carbons per chain, 0 to 1 (AF2 suppl. 1.9.6 without rounding).

    predicted, true: [batch, N_res, 37, 3] angstrom; atom_mask: [batch, N_res, 37]. Returns [batch], NaN
    where a predicted coordinate is not finite.
    """
    score = lddt(
        predicted[..., CA, :].float(),
        true[..., CA, :].float(),
        atom_mask[..., CA].float(),
        per_residue=False,
    )
    # comparisons with NaN are false and would pass for a bad structure, not for none
    is_finite = torch.isfinite(predicted).all(-1).all(-1).all(-1)
    return torch.where(is_finite, score, torch.nan)


def mean_score(scores: tuple[ChainScore, ...]) -> float:
    """The figure of an evaluation: the mean over chains, long and short alike."""
    return sum(score.lddt_ca for score in scores) / len(scores)
