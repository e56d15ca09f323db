"""Relax a structure: remove clashes and wrong bonds by small moves (AF2 suppl. 1.8.6)."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.relaxation.minimization import (
    Minimizer,
    check_openmm,
    choose_platform,
    openmm_errors,
)
from openfold_opt.predict.relaxation.molecule import build_molecule, check_atoms
from openfold_opt.predict.relaxation.violations import Violations, find_violations

if TYPE_CHECKING:
    from openmm import Platform


@dataclass(frozen=True, kw_only=True)
class RelaxOptions:
    """How a structure is relaxed. The values of the energies are those of AlphaFold2."""

    stiffness: float = 10.0
    """Of the harmonic restraints of heavy atoms, kcal/mol/angstrom^2."""
    tolerance: float = 10.0
    """RMS of the force components at which the minimizer stops, kJ/mol/nm. AlphaFold2 has 2.39 in
    kcal/mol, which OpenMM applies as 10 kJ/mol/nm."""
    max_rounds: int = 3
    """Minimizations. In each further one, residues with violations have no restraints."""
    num_threads: int = 1
    """Threads on a CPU. With one, equal structures give equal results. With several, OpenMM adds up
    forces in any order, and atoms of two runs differ by some hundredths of an angstrom."""
    gpu_index: int | None = None
    """The GPU, if OpenMM has its platform CUDA; None: a CPU."""

    def __post_init__(self) -> None:
        """Raise ValueError if a value is out of range."""
        if self.stiffness < 0 or self.tolerance <= 0 or min(self.max_rounds, self.num_threads) < 1:
            raise ValueError(
                "expected stiffness >= 0, tolerance > 0, max_rounds >= 1 and num_threads >= 1; "
                f"found {self}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class RelaxationReport:
    """What a relaxation changed."""

    before: Violations
    after: Violations
    num_rounds: int
    max_ca_shift: float
    """The largest move of a CA atom, angstrom."""
    seconds: float
    platform: str
    """Platform of OpenMM: CPU or CUDA."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RelaxedStructure:
    """A relaxed structure."""

    structure: ChainStructure
    """The same atoms and pLDDT as before, without hydrogens."""
    report: RelaxationReport


def relax(structure: ChainStructure, *, options: RelaxOptions = RelaxOptions()) -> RelaxedStructure:
    """Minimize the energy of a structure, with restraints to its positions.

    Hydrogens and the terminal oxygen are added for the force field and removed again. Residues
    without atoms (unknown residues) are gaps: nothing is bonded across them.

    Args:
        structure: every residue has all its heavy atoms or none.
        options: restraints, tolerance and device.

    Raises:
        ValueError: OpenMM is not installed, or the structure cannot be relaxed: it has no atoms,
            incomplete residues, or positions that are not finite.
        RelaxationError: the minimization failed, for example because atoms coincide.
    """
    check_openmm()
    check_atoms(structure)
    started = time.perf_counter()
    platform = choose_platform(num_threads=options.num_threads, gpu_index=options.gpu_index)
    with openmm_errors():
        relaxed, num_rounds = _minimized(structure, options, platform)
    shifts = np.linalg.norm(relaxed.ca_positions - structure.ca_positions, axis=-1)
    report = RelaxationReport(
        before=find_violations(structure),
        after=find_violations(relaxed),
        num_rounds=num_rounds,
        max_ca_shift=float(shifts.max()),
        seconds=time.perf_counter() - started,
        platform=platform.getName(),
    )
    return RelaxedStructure(structure=relaxed, report=report)


def _minimized(
    structure: ChainStructure, options: RelaxOptions, platform: Platform
) -> tuple[ChainStructure, int]:
    """Minimize until there are no violations, and return the structure and the number of rounds."""
    molecule = build_molecule(structure, platform)
    minimizer = Minimizer(molecule, stiffness=options.stiffness, platform=platform)
    residues = np.nonzero(structure.atom_mask)[0]
    is_free = np.zeros(structure.num_residues, bool)
    relaxed, num_rounds, is_done = structure, 0, False
    while not is_done and num_rounds < options.max_rounds:
        positions = structure.positions.copy()
        positions[structure.atom_mask] = minimizer.minimize(options.tolerance)
        relaxed = dataclasses.replace(structure, positions=positions)
        num_rounds += 1
        has_violation = find_violations(relaxed).residues
        is_done = not has_violation.any()
        is_free |= has_violation
        minimizer.release(is_free[residues])
    return relaxed, num_rounds
