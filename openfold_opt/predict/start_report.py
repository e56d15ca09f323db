"""Lines about weights, settings, chains and memory that are printed before the first prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openfold_opt.predict.models import ChainJob, Models
from openfold_opt.predict.run_settings import RunFacts
from openfold_opt.predict.scores import short_name

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
    warnings = [
        f"warning: {short_name(job.chain.name)}: {text}"
        for job in jobs
        for text in job.chain.warnings
    ]
    yield from _first(warnings, what="warnings, which the records of the chains have")
    yield from _describe_plans(models, jobs)


def _describe_chains(jobs: Sequence[ChainJob], num_chains: int) -> Iterator[str]:
    num_finished = num_chains - len(jobs)
    finished = f"{num_finished} of {num_chains} chains are finished; " if num_finished else ""
    if not jobs:
        yield f"{finished}nothing to predict"
        return
    lengths = [len(job.chain.sequence) for job in jobs]
    if len(jobs) == 1:
        yield f"{finished}1 chain to predict, {lengths[0]:,} residues"
        return
    yield (
        f"{finished}{len(jobs)} chains to predict, {min(lengths):,} to {max(lengths):,} residues"
    )


def _describe_plans(models: Models, jobs: Sequence[ChainJob]) -> Iterator[str]:
    """Describe chains that do not fit, and the plan of the longest chain that does.

    Memory grows with the length, so shorter chains need no plan yet.
    """
    refusals = []
    for job in sorted(jobs, key=lambda job: -len(job.chain.sequence)):
        plans = [models.plan(job.chain, index) for index in range(len(models.names))]
        refused = [plan.refusal() for plan in plans if not plan.fits]
        if not refused:
            largest = max(plans, key=lambda plan: plan.peak_bytes)
            yield f"memory plan of the longest chain that fits, {short_name(job.chain.name)}:"
            yield from largest.summary()
            break
        refusals.append(f"does not fit: {short_name(job.chain.name)}: {refused[0]}")
    yield from _first(refusals, what="chains that do not fit")


def _first(lines: Sequence[str], *, what: str) -> Iterator[str]:
    yield from lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        yield f"and {len(lines) - MAX_LINES} more {what}"
