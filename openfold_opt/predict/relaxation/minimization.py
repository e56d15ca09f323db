"""Minimize the energy of a molecule with OpenMM, with restraints to its first positions."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from openfold_opt.predict.relaxation.molecule import Molecule, disulfide_cysteines

if TYPE_CHECKING:
    from openmm import CustomExternalForce, Platform, System

FORCE_FIELD = "amber14/protein.ff14SB.xml"
CUTOFF_NANOMETER = 1.0
ANGSTROM_PER_NANOMETER = 10.0
KILOJOULE_PER_KILOCALORIE = 4.184
_STIFFNESS_UNIT = KILOJOULE_PER_KILOCALORIE * ANGSTROM_PER_NANOMETER**2
"""kcal/mol/angstrom^2 in kJ/mol/nm^2."""


class RelaxationError(RuntimeError):
    """The energy of a structure could not be minimized."""


def check_openmm() -> None:
    """Raise ValueError if OpenMM is not installed."""
    if importlib.util.find_spec("openmm") is None:
        raise ValueError(
            "relaxation needs the package openmm, which is not installed; pip install openmm"
        )


@contextmanager
def openmm_errors() -> Iterator[None]:
    """Raise a RelaxationError in place of the errors of OpenMM."""
    from openmm import OpenMMException

    try:
        yield
    except ZeroDivisionError as error:
        # Modeller divides by the distances of bonded atoms.
        raise RelaxationError("hydrogens cannot be added: bonded atoms coincide") from error
    except OpenMMException as error:
        if "NaN" in str(error):
            raise RelaxationError("the energy is not finite, because atoms coincide") from error
        raise RelaxationError(f"OpenMM could not minimize the energy: {error}") from error


def choose_platform(*, num_threads: int, gpu_index: int | None) -> Platform:
    """Return the platform of OpenMM that computes forces, as deterministic as it can be.

    Args:
        num_threads: threads of the platform CPU.
        gpu_index: index of the GPU for the platform CUDA; None, or an OpenMM without this
            platform: the platform CPU.
    """
    from openmm import Platform

    names = [Platform.getPlatform(index).getName() for index in range(Platform.getNumPlatforms())]
    if gpu_index is not None and "CUDA" in names:
        name, properties = "CUDA", {"DeviceIndex": str(gpu_index), "Precision": "mixed"}
    else:
        name, properties = "CPU", {"Threads": str(num_threads)}
    platform = Platform.getPlatformByName(name)
    for key, value in {**properties, "DeterministicForces": "true"}.items():
        # The function of OpenMM that adds hydrogens takes no properties.
        platform.setPropertyDefaultValue(key, value)
    return platform


class Minimizer:
    """Moves the atoms of a molecule downhill in the energy of Amber ff14SB and the restraints.

    Nonbonded forces end at 1 nm: the Coulomb force has a reaction field of water there, which also
    stands in for the solvent. Time and memory are proportional to the number of atoms.
    """

    def __init__(self, molecule: Molecule, *, stiffness: float, platform: Platform) -> None:
        """Restrain the atoms of the structure to their positions.

        Args:
            molecule: atoms and their first positions.
            stiffness: k of the restraints k / 2 * distance^2, kcal/mol/angstrom^2.
            platform: computes the forces.
        """
        import openmm

        self._known = molecule.known
        self._references = molecule.positions[molecule.known] / ANGSTROM_PER_NANOMETER
        self._stiffness = stiffness * _STIFFNESS_UNIT
        system = _system(molecule)
        self._restraints = self._add_restraints(system)
        # The integrator is not used, but a Context needs one.
        integrator = openmm.VerletIntegrator(0.001)
        self._context = openmm.Context(system, integrator, platform)
        self._context.setPositions(molecule.positions / ANGSTROM_PER_NANOMETER)

    def release(self, is_free: np.ndarray) -> None:
        """Remove the restraints of atoms. is_free: bool [N_known]."""
        stiffness = np.where(is_free, 0.0, self._stiffness)
        for index, (atom, reference, k) in enumerate(zip(self._known, self._references, stiffness)):
            self._restraints.setParticleParameters(index, int(atom), [k, *reference])
        self._restraints.updateParametersInContext(self._context)

    def minimize(self, tolerance: float) -> np.ndarray:
        """Minimize with L-BFGS, starting from the current positions.

        Args:
            tolerance: the RMS of the force components at which the minimizer stops, kJ/mol/nm.

        Returns:
            Positions of the atoms of the structure, [N_known, 3] float64, angstrom.

        Raises:
            RelaxationError: a position is not finite.
            OpenMMException: the energy is not finite.
        """
        import openmm
        from openmm import unit

        class Reporter(openmm.MinimizationReporter):
            """Called in each iteration, so that Python can handle signals such as Ctrl-C."""

            def report(self, iteration: int, x: object, grad: object, args: object) -> bool:
                return False

        openmm.LocalEnergyMinimizer.minimize(self._context, tolerance, 0, Reporter())
        state = self._context.getState(positions=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)[self._known]
        if not np.isfinite(positions).all():
            raise RelaxationError("OpenMM returned positions that are not finite")
        return positions

    def _add_restraints(self, system: System) -> CustomExternalForce:
        from openmm import CustomExternalForce

        force = CustomExternalForce("k / 2 * ((x - x0)^2 + (y - y0)^2 + (z - z0)^2)")
        for name in ("k", "x0", "y0", "z0"):
            force.addPerParticleParameter(name)
        for atom, reference in zip(self._known, self._references):
            force.addParticle(int(atom), [self._stiffness, *reference])
        system.addForce(force)
        return force


def _system(molecule: Molecule) -> System:
    from openmm import app

    cysteines = disulfide_cysteines(molecule.topology)
    return app.ForceField(FORCE_FIELD).createSystem(
        molecule.topology,
        nonbondedMethod=app.CutoffNonPeriodic,
        nonbondedCutoff=CUTOFF_NANOMETER,
        # Residues at a gap have no bond to a neighbor. Without these bonds, a cysteine of a
        # disulfide bond has the same atoms and bonds as the anion of cysteine.
        ignoreExternalBonds=True,
        residueTemplates=dict.fromkeys(cysteines, "CYX"),
    )
