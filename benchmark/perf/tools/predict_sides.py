"""The programs that `perf predict` compares, and how to run each in a separate process."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.machine import CHECKOUT
from benchmark.perf.subprocesses.forward_measurement import ForwardRun, ForwardSettings
from benchmark.perf.tools.mlcommons_reference import Reference
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.predict_case import WeightFiles
from benchmark.perf.tools.probe import run_process

OURS = "ours"
REFERENCE = "MLCommons reference"
OPENFOLD_NAMES = {
    "4": "OpenFold chunk 4",
    "tuned": "OpenFold tuned",
    "unchunked": "OpenFold unchunked",
}
"""Chunk setting -> name."""

_PROBES = "benchmark.perf.subprocesses"
_OPENFOLD_NEEDS = "openfold/model/model.py"
_OPENFOLD_MODULES = "Bio, ml_collections, numpy, scipy, torch"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A program to measure in one of its settings."""

    name: str
    variant: str
    python: str
    """Interpreter of the probe."""
    probe: str
    """Its module in benchmark.perf.subprocesses."""
    checkout: Path | None = None
    """Checkout of another project, in which the probe runs."""
    has_openfold_names: bool = False
    """Whether it reads weights with OpenFold's names."""
    needs_untimed: bool = False
    """Whether the first forward pass at a length does more than the following ones."""

    def run(self, settings: ForwardSettings, weights: WeightFiles) -> ForwardRun:
        """Run the probe. `variant`, `weights` and the minimum of `untimed` are set here.

        Raises:
            BenchmarkError: It failed; says why.
        """
        settings = dataclasses.replace(
            settings,
            variant=self.variant,
            weights=str(weights.openfold if self.has_openfold_names else weights.ours),
            untimed=max(settings.untimed, int(self.needs_untimed)),
        )
        environment = None
        if self.checkout is not None:
            environment = _environment(self.checkout, threads=settings.threads)
        (run,) = run_process(
            [
                self.python,
                "-m",
                f"{_PROBES}.{self.probe}",
                json.dumps(dataclasses.asdict(settings)),
            ],
            name=self.name,
            environment=environment,
            folder=self.checkout,
        )
        return from_json(ForwardRun, run)


def our_side(kernels: str) -> Side:
    """Return our forward pass with an implementation of all operations."""
    return Side(name=OURS, variant=kernels, python=sys.executable, probe="predict_probe")


def reference_side(reference: Reference) -> Side:
    """Return the forward pass of the MLCommons reference."""
    return Side(
        name=REFERENCE,
        variant="",
        python=reference.python,
        probe="reference_forward",
        checkout=reference.checkout,
    )


def openfold_sides(checkout: Path, python: str, variants: Sequence[str]) -> list[Side]:
    """Return OpenFold with each of the chunk settings.

    Raises:
        BenchmarkError: The checkout or the interpreter cannot be used.
    """
    if not (checkout / _OPENFOLD_NEEDS).is_file():
        raise BenchmarkError(
            f"--openfold {checkout} has no {_OPENFOLD_NEEDS}; expected a checkout of "
            "aqlaboratory/openfold"
        )
    _check_python(python)
    return [
        Side(
            name=OPENFOLD_NAMES[variant],
            variant=variant,
            python=python,
            probe="openfold_forward",
            checkout=checkout.resolve(),
            has_openfold_names=True,
            needs_untimed=variant == "tuned",
        )
        for variant in variants
    ]


def _environment(checkout: Path, *, threads: int) -> dict[str, str]:
    """Return a minimal environment, without variables of this process."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": f"{checkout}:{CHECKOUT}",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
    }


def _check_python(python: str) -> None:
    try:
        process = subprocess.run(
            [python, "-c", f"import {_OPENFOLD_MODULES}"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BenchmarkError(
            f"--openfold-python {python} cannot be started: {describe_error(error)}"
        ) from error
    if process.returncode != 0:
        reason = process.stderr.strip().splitlines()[-1]
        raise BenchmarkError(
            f"--openfold-python {python} cannot import the packages of OpenFold "
            f"({_OPENFOLD_MODULES}): {reason}"
        )
