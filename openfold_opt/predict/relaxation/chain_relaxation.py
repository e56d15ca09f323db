"""Relax the predictions of one chain, write the structures, and describe what changed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from openfold_opt.predict.chain_results import ChainResult, write_structure
from openfold_opt.predict.file_names import RELAXED, RELAXED_PDB
from openfold_opt.predict.relaxation.minimization import (
    FORCE_FIELD,
    RelaxationError,
    choose_platform,
)
from openfold_opt.predict.relaxation.relax import RelaxationReport, RelaxOptions, relax

if TYPE_CHECKING:
    from openfold_opt.predict.output_files import ChainFiles

LARGE_SHIFT_ANGSTROM = 2.0
"""A larger move of a CA atom is a warning."""
_KINDS = ("clashes", "bonds", "angles", "chain_breaks", "residue_distances")
_REFINEMENT = (
    "Energy minimization with OpenMM, Amber ff14SB, with restraints to the predicted positions"
)


def describe_platform(device: torch.device) -> str:
    """Return the line of the start about relaxation."""
    options = options_for(device)
    name = choose_platform(num_threads=options.num_threads, gpu_index=options.gpu_index).getName()
    if name == "CUDA":
        return "relaxation: OpenMM on the GPU"
    reason = "" if device.type == "cpu" else ", because this OpenMM has no platform CUDA"
    return f"relaxation: OpenMM on one core of the CPU{reason}"


def options_for(device: torch.device) -> RelaxOptions:
    """Return the options for the device of a prediction."""
    return RelaxOptions(gpu_index=(device.index or 0) if device.type == "cuda" else None)


def relax_results(
    files: ChainFiles, results: Iterable[ChainResult], *, device: torch.device
) -> tuple[dict[str, Mapping[str, object]], list[str]]:
    """Relax structures and write those that can be relaxed. A failure is a warning.

    Args:
        files: of the chain, before `finish`.
        results: the predictions to relax.
        device: of the predictions.

    Returns:
        The entry `relaxation` of the record by the name of the weights, and warnings.

    Raises:
        OSError: the disk is full.
    """
    entries: dict[str, Mapping[str, object]] = {}
    warnings: list[str] = []
    for result in results:
        weights, started = result.facts.weights, time.perf_counter()
        try:
            relaxed = relax(result.structure, options=options_for(device))
        except Exception as error:
            # Whatever went wrong, the prediction itself is good and stays.
            is_known = isinstance(error, RelaxationError | ValueError)
            message = str(error) if is_known else f"{type(error).__name__}: {error}"
            entries[weights] = {
                "status": "failed",
                "message": message,
                "seconds": round(time.perf_counter() - started, 3),
            }
            warnings.append(f"the structure of {weights} is not relaxed: {message}")
            continue
        facts = dataclasses.replace(result.facts, refinement=_REFINEMENT)
        warnings += write_structure(files, relaxed.structure, facts, kinds=(RELAXED, RELAXED_PDB))
        entries[weights] = _entry(relaxed.report)
        warnings += [f"relaxation of {weights} {text}" for text in _problems(relaxed.report)]
    return entries, warnings


def describe_relaxation(entry: Mapping[str, object]) -> str:
    """Return the end of the progress line of a chain, from the entry of its record."""
    if entry["status"] == "failed":
        return "NOT relaxed"
    return (
        f"relaxed: clashes {entry['clashes_before']} -> {entry['clashes_after']}, "
        f"CA shift {entry['max_ca_shift']:.2f} A, {entry['seconds']:.1f} s"
    )


def _entry(report: RelaxationReport) -> dict[str, object]:
    entry: dict[str, object] = {
        "status": "relaxed",
        "message": None,
        "seconds": round(report.seconds, 3),
        "platform": report.platform,
        "force_field": FORCE_FIELD,
        "num_rounds": report.num_rounds,
    }
    for kind in _KINDS:
        for when, violations in (("before", report.before), ("after", report.after)):
            entry[f"{kind}_{when}"] = getattr(violations, kind).count
    return entry | {"max_ca_shift": round(report.max_ca_shift, 3)}


def _problems(report: RelaxationReport) -> list[str]:
    """Say what a user should know before using a relaxed structure."""
    problems = []
    num_residues = int(report.after.residues.sum())
    if num_residues:
        problems.append(f"left violations in {num_residues:,} residues")
    if report.max_ca_shift > LARGE_SHIFT_ANGSTROM:
        problems.append(
            f"moved a CA atom by {report.max_ca_shift:.1f} angstrom, because the prediction is far "
            "from a physical structure"
        )
    return problems
