"""Relaxation of predicted structures with OpenMM, and their structural violations."""

from __future__ import annotations

from openfold_opt.predict.relaxation.minimization import RelaxationError, check_openmm
from openfold_opt.predict.relaxation.relax import (
    RelaxationReport,
    RelaxedStructure,
    RelaxOptions,
    relax,
)
from openfold_opt.predict.relaxation.violations import Deviations, Violations, find_violations

__all__ = [
    "Deviations",
    "RelaxOptions",
    "RelaxationError",
    "RelaxationReport",
    "RelaxedStructure",
    "Violations",
    "check_openmm",
    "find_violations",
    "relax",
]
