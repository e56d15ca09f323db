"""Run and time code of the MLCommons reference from a checkout of mlcommons/hpc."""

from __future__ import annotations

import json
import reprlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.timing_stats import StepTimes
from openfold_opt.protein.features import FEATURES

_T = TypeVar("_T")
_SCRIPTS = Path(__file__).resolve().parents[1] / "subprocesses"
SAMPLES_SCRIPT = _SCRIPTS / "reference_samples.py"
STEP_SCRIPT = _SCRIPTS / "reference_step.py"
HOST_SCRIPT = _SCRIPTS / "reference_host.py"
_NEEDED = (
    "scripts/preprocess_pdb_mmcif.py",
    "scripts/preprocess_open_protein_set.py",
    "openfold/datasets.py",
)


@dataclass(frozen=True, kw_only=True)
class ReferenceConversion:
    """Times of the reference's two preprocessing scripts."""

    structures_seconds: float
    alignments_seconds: float


@dataclass(frozen=True, kw_only=True)
class ReferenceSamples:
    """Times of the samples of a chain, as reference_samples.py prints them."""

    chain: str
    kind: str
    """"training" or "evaluation"."""
    seconds: list[float]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The MLCommons reference and the interpreter to run it with."""

    checkout: Path
    """Folder openfold of a checkout of mlcommons/hpc."""
    python: str
    """Python that has Biopython, pandas, dacite, torch and the other packages of the reference."""

    def check(self) -> None:
        """Check the checkout and the interpreter.

        Raises:
            BenchmarkError: Files are missing, or the interpreter cannot import the packages.
        """
        for name in _NEEDED:
            if not (self.checkout / name).is_file():
                raise BenchmarkError(
                    f"--reference {self.checkout} has no {name}; expected the folder openfold of "
                    "a checkout of mlcommons/hpc"
                )
        modules = "Bio, dacite, pandas, psutil, pympler, scipy, torch, tqdm"
        try:
            process = subprocess.run(
                [self.python, "-c", f"import {modules}"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise BenchmarkError(
                f"--reference-python {self.python} cannot be started: {describe_error(error)}"
            ) from error
        if process.returncode != 0:
            lines = process.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"it ended with exit code {process.returncode}"
            raise BenchmarkError(
                f"--reference-python {self.python} cannot import the packages of the MLCommons "
                f"reference ({modules}): {reason}"
            )

    def preprocess(
        self, *, pdb_mmcif: Path, open_protein_set: Path, out: Path
    ) -> ReferenceConversion:
        """Run both preprocessing scripts with one worker process, and return their times.

        The results are in out/pdb and out/alignments.
        """
        pdb_seconds = self._timed(
            [
                "scripts/preprocess_pdb_mmcif.py",
                "--pdb_mmcif_dirpath",
                pdb_mmcif,
                "--output_dirpath",
                out / "pdb",
                "--pdb_clusters_by_entity_filepath",
                pdb_mmcif / "clusters-by-entity-40.txt",
                "--pdb_obsolete_filepath",
                pdb_mmcif / "obsolete.dat",
                "--num_parallel_processes",
                1,
            ]
        )
        alignment_seconds = self._timed(
            [
                "scripts/preprocess_open_protein_set.py",
                "--open_protein_set_dirpath",
                open_protein_set,
                "--output_dirpath",
                out / "alignments",
                "--num_parallel_processes",
                1,
            ]
        )
        return ReferenceConversion(
            structures_seconds=pdb_seconds, alignments_seconds=alignment_seconds
        )

    def samples(
        self, processed: Path, chain_ids: Sequence[str], *, repeats: int
    ) -> Iterator[ReferenceSamples]:
        """Yield the times for each kind of sample and each chain that the reference can use."""
        command = [
            self.python,
            SAMPLES_SCRIPT,
            processed / "pdb",
            processed / "alignments",
            repeats,
            *chain_ids,
        ]
        with subprocess.Popen(
            list(map(str, command)),
            env=_environment(self.checkout),
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield from_json(ReferenceSamples, json.loads(line))
        if process.returncode != 0:
            raise BenchmarkError(
                "the MLCommons reference's sample preparation ended with exit code "
                f"{process.returncode}; see its messages above"
            )

    def step(
        self, features: Path, *, blocks: int, passes: int, repeats: int, threads: int
    ) -> Iterator[StepTimes]:
        """Time training steps in a separate process, and yield their times once it has ended.

        An iterator, as for our steps, which report after each step.

        features: .npz file of a batch with our feature names and order of dims.
        """
        sizes = [blocks, passes, repeats, threads, features]
        yield self._step_result(StepTimes, STEP_SCRIPT, [*sizes, _per_pass()], threads=threads)

    def host(self, features: Path, kind: type[_T], *, repeats: int) -> _T:
        """Count and time what the host does in a training step, in a separate process.

        features: .npz file of a small batch with two passes. kind: what reference_host.py prints.
        """
        return self._step_result(kind, HOST_SCRIPT, [repeats, features, _per_pass()], threads=1)

    def _step_result(
        self, kind: type[_T], script: Path, arguments: Sequence[object], *, threads: int
    ) -> _T:
        """Run a script of training steps, and return the value of the last line that it prints."""
        command = list(map(str, [self.python, script, *arguments]))
        environment = _environment(self.checkout) | {"OMP_NUM_THREADS": str(threads)}
        finished = subprocess.run(
            command, env=environment, cwd=self.checkout, capture_output=True, text=True, check=False
        )
        if finished.returncode != 0:
            print(finished.stderr[-4000:], file=sys.stderr)
            raise BenchmarkError(
                "the MLCommons reference's training step ended with exit code "
                f"{finished.returncode}; see its messages above"
            )
        line = (finished.stdout.splitlines() or [""])[-1]
        try:
            return from_json(kind, json.loads(line))
        except (ValueError, RecursionError) as error:
            raise BenchmarkError(
                "the MLCommons reference's training step ended with the line "
                f"{reprlib.repr(line)}; expected JSON with its times ({error}). Check "
                f"--reference-python {self.python}, and that the checkout prints nothing when "
                "Python exits"
            ) from error

    def _timed(self, arguments: Sequence[object]) -> float:
        started = time.perf_counter()
        command = list(map(str, [self.python, *arguments]))
        finished = subprocess.run(
            command,
            env=_environment(self.checkout),
            cwd=self.checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode != 0:
            print(finished.stdout[-2000:], finished.stderr[-4000:], file=sys.stderr)
            raise BenchmarkError(
                f"{arguments[0]} of the MLCommons reference ended with exit code "
                f"{finished.returncode}; see its messages above"
            )
        return time.perf_counter() - started


def _per_pass() -> str:
    """Return the names of features with a dim of passes."""
    return ",".join(name for name, spec in FEATURES.items() if spec.per_pass)


def _environment(checkout: Path) -> dict[str, str]:
    """Return a minimal environment, without variables of this process."""
    return {
        "PYTHONPATH": str(checkout),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
    }
