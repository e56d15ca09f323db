"""Assemble the submission directory in a temporary directory, then move it to its destination.

    <submitter>/systems/<system>.json
    <submitter>/benchmarks/openfold/implementations/<implementation>/   code of one commit
    <submitter>/benchmarks/openfold/implementations/<system>/           README, scripts, config
    <submitter>/results/<system>/{strong,weak}/openfold/result_<i>.txt, power/result_<i>/

Source: submission_rules.adoc of mlcommons/policies, and mlcommons/hpc_results_v3.0.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.run.output_directory import POWER_FOLDER
from benchmark.submission.code import COMMIT_DIGITS, unpack_commit
from benchmark.submission.instructions import write_instructions
from benchmark.submission.submitted_run import SubmittedRun

BENCHMARK = "openfold"


@dataclass(frozen=True, kw_only=True)
class Package:
    """Contents of a submission for one system and one kind of scaling."""

    description: Mapping[str, object]
    system: str
    """Name of the system's folder and of its description."""
    scaling: str
    """strong: time to train. weak: throughput of concurrent instances."""
    runs: Sequence[SubmittedRun]
    commit: str
    """Full hash of the commit whose code is packed."""
    extra_files: Sequence[Path] = ()
    """Further files for the system's folder, such as its Slurm configuration."""

    @property
    def submitter(self) -> str:
        """Name of the submission's folder."""
        return str(self.description["submitter"])

    @property
    def implementation(self) -> str:
        """Name of the code's folder, one for each commit."""
        return f"openfold_opt_{self.commit[:COMMIT_DIGITS]}"

    @property
    def results_folder(self) -> Path:
        """Folder of the logs, relative to the submission's folder."""
        return Path("results", self.system, self.scaling, BENCHMARK)


@contextmanager
def assembled(package: Package, out: Path, *, checkout: Path, replace: bool) -> Iterator[Path]:
    """Yield the complete <temporary>/<submitter>, and move it to out/<submitter> afterwards.

    Nothing is moved if the block raises an error. Other systems in out/<submitter> are kept. The
    temporary directory is in `out` and is removed.

    Raises:
        BenchmarkError: out/<submitter> already has the system, and replace is False.
    """
    target = out / package.submitter
    _check_target(package, target, replace=replace)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{package.submitter}.", dir=out) as name:
        folder = Path(name, package.submitter)
        if target.exists():
            shutil.copytree(target, folder)
        _write(package, folder, checkout=checkout)
        yield folder
        _move(folder, target, aside=Path(name, "before"))


def _check_target(package: Package, target: Path, *, replace: bool) -> None:
    results = target / "results" / package.system
    if results.exists() and not (results / package.scaling).exists():
        # The system's description, scripts and configuration can be those of only one measurement.
        raise BenchmarkError(
            f"{results} has the other kind of measurement; time to train and throughput need two "
            "systems: give --system a file with another name"
        )
    if results.exists() and not replace:
        raise BenchmarkError(
            f"{results} exists; replace its runs with --replace, or give another directory with "
            "--out"
        )


def _move(folder: Path, target: Path, *, aside: Path) -> None:
    """Replace target by folder; on an error, restore target.

    aside: path to which target is moved in between.
    """
    if not target.exists():
        folder.rename(target)
        return
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise


def _write(package: Package, folder: Path, *, checkout: Path) -> None:
    """Write the package into the submitter's folder, in which other systems may be."""
    systems = folder / "systems"
    systems.mkdir(parents=True, exist_ok=True)
    (systems / f"{package.system}.json").write_text(
        json.dumps(package.description, indent=4) + "\n", encoding="utf-8"
    )
    _write_results(package.runs, folder / package.results_folder)
    implementations = folder / "benchmarks" / BENCHMARK / "implementations"
    code = implementations / package.implementation
    if not code.exists():
        code.mkdir(parents=True)
        unpack_commit(checkout, package.commit, code)
    system_folder = implementations / package.system
    shutil.rmtree(system_folder, ignore_errors=True)
    system_folder.mkdir()
    write_instructions(
        system_folder,
        system=package.system,
        implementation=package.implementation,
        description=package.description,
        record=next((run.record for run in package.runs if run.record), None),
        extra_names=[file.name for file in package.extra_files],
    )
    for file in package.extra_files:
        if (system_folder / file.name).exists():
            raise BenchmarkError(
                f"{file}: the system's folder already has a file of this name; rename it"
            )
        shutil.copyfile(file, system_folder / file.name)
        shutil.copymode(file, system_folder / file.name)


def _write_results(runs: Sequence[SubmittedRun], folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for run in runs:
        shutil.copyfile(run.path, folder / f"{run.name}.txt")
        if run.power_files:
            power = folder / POWER_FOLDER / run.name
            power.mkdir(parents=True)
            for file in run.power_files:
                shutil.copyfile(file, power / file.name)
