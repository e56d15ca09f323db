"""Lines about weights, settings, chains and memory that are printed before the first prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openfold_opt.predict.models import ChainJob, ChainPlan, Models
from openfold_opt.predict.run_settings import RunFacts

MAX_LINES = 10
"""Maximum number of warnings, and of chains that do not fit, that are printed."""


def describe_start(
    facts: RunFacts, models: Models, jobs: Sequence[ChainJob], *, num_chains: int
) -> Iterator[str]:
    """Yield the lines. jobs: chains to predict. num_chains: those and the finished ones."""
    for weights in facts.weights:
        settings = ", ".join(f"{name} {value}" for name, value in weights.settings.items())
        yield (
            f"weights {weights.name}: {weights.kind}, {weights.path}, SHA-256 "
            f"{weights.sha256[:12]}; {settings}"
        )
    yield "settings: " + ", ".join(f"{name} {value}" for name, value in facts.settings.items())
    yield f"device: {facts.device}"
    without = [name for index, name in enumerate(models.names) if not models.has_pae(index)]
    if without:
        yield (
            f"no PAE and no pTM from {', '.join(without)}: these weights have no TM-score head"
            + ("" if facts.settings["rank"].value == "plddt" else "; ranking by mean pLDDT")
        )
    yield from models.notes
    yield from _describe_chains(jobs, num_chains)
    warnings = [f"warning: {job.chain.name}: {text}" for job in jobs for text in job.chain.warnings]
    yield from _first(warnings, what="warnings, which the records of the chains have")
    yield from _describe_plans(models, jobs)


def _describe_chains(jobs: Sequence[ChainJob], num_chains: int) -> Iterator[str]:
    num_finished = num_chains - len(jobs)
    finished = f"{num_finished} of {num_chains} chains are finished; " if num_finished else ""
    if not jobs:
        yield f"{finished}nothing to predict"
        return
    lengths = [len(job.chain.sequence) for job in jobs]
    yield (
        f"{finished}{len(jobs)} chains to predict, {min(lengths):,} to {max(lengths):,} residues"
    )


def _describe_plans(models: Models, jobs: Sequence[ChainJob]) -> Iterator[str]:
    """Describe the plan with the largest peak, and every chain that does not fit."""
    plans: list[tuple[str, ChainPlan]] = [
        (job.chain.name, models.plan(job.chain, index))
        for job in jobs
        for index in range(len(models.names))
    ]
    fitting = [(name, plan) for name, plan in plans if plan.fits]
    if fitting:
        name, plan = max(fitting, key=lambda item: item[1].peak_bytes)
        yield f"largest memory plan, chain {name}:"
        yield from plan.describe()
    refused = {name: plan.refusal() for name, plan in plans if not plan.fits}
    yield from _first(
        [f"does not fit: {name}: {text}" for name, text in refused.items()],
        what="chains that do not fit",
    )


def _first(lines: Sequence[str], *, what: str) -> Iterator[str]:
    yield from lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        yield f"and {len(lines) - MAX_LINES} more {what}"
