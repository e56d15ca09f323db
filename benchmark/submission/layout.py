"""The directory that MLCommons takes, put together beside its place and moved there whole.

    <submitter>/systems/<system>.json
    <submitter>/benchmarks/openfold/implementations/<implementation>/   the code of one commit
    <submitter>/benchmarks/openfold/implementations/<system>/           README, set-up and run scripts, configuration
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
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.output_directory import POWER_FOLDER
from benchmark.submission.code import COMMIT_LETTERS, unpack_commit
from benchmark.submission.instructions import write_instructions
from benchmark.submission.logs import RunLog

BENCHMARK = "openfold"


@dataclass(frozen=True, kw_only=True)
class Package:
    """What goes into a submission for one system and one kind of scaling."""

    description: Mapping[str, Any]
    system: str
    """Name of the system's folder and of its description."""
    scaling: str
    """strong: time to train. weak: throughput of instances side by side."""
    logs: Sequence[RunLog]
    commit: str
    """Full hash of the commit whose code is packed."""
    extra_files: Sequence[Path] = ()
    """The site's own files for the system's folder, such as its Slurm configuration."""

    @property
    def submitter(self) -> str:
        """Name of the submission's folder."""
        return str(self.description["submitter"])

    @property
    def implementation(self) -> str:
        """Name of the code's folder; that of a commit, so that runs of different code can lie side by side."""
        return f"openfold_opt_{self.commit[:COMMIT_LETTERS]}"

    @property
    def results_folder(self) -> Path:
        """Where the logs lie, relative to the submission's folder."""
        return Path("results", self.system, self.scaling, BENCHMARK)


@contextmanager
def assembled(package: Package, out: Path, *, checkout: Path, replace: bool) -> Iterator[Path]:
    """Yields <temporary>/<submitter>, complete; when the block ends without an error it becomes out/<submitter>.

    What is in out/<submitter> already, of other systems, stays in it. The same system is refused with
    BenchmarkError unless replace. The temporary directory lies in out and is removed in the end.
    """
    target = out / package.submitter
    _check_place(package, target, replace=replace)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{package.submitter}.", dir=out) as name:
        folder = Path(name, package.submitter)
        if target.exists():
            shutil.copytree(target, folder)
        _write(package, folder, checkout=checkout)
        yield folder
        _move(folder, target, aside=Path(name, "before"))


def _check_place(package: Package, target: Path, *, replace: bool) -> None:
    results = target / "results" / package.system
    if results.exists() and not (results / package.scaling).exists():
        # its description, scripts and configuration would be those of two measurements
        raise BenchmarkError(
            f"{results} has the other kind of measurement; time to train and throughput are described as two systems: "
            "give --system a file of another name"
        )
    if results.exists() and not replace:
        raise BenchmarkError(
            f"{results} exists; --replace puts these runs in its place, --out names another directory"
        )


def _move(folder: Path, target: Path, *, aside: Path) -> None:
    """Put folder in the place of target; on an error, what was there comes back."""
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
    systems = folder / "systems"
    systems.mkdir(parents=True, exist_ok=True)
    (systems / f"{package.system}.json").write_text(
        json.dumps(package.description, indent=4) + "\n", encoding="utf-8"
    )
    _write_results(package.logs, folder / package.results_folder)
    implementations = folder / "benchmarks" / BENCHMARK / "implementations"
    code = implementations / package.implementation
    if not code.exists():
        code.mkdir(parents=True)
        unpack_commit(checkout, package.commit, code)
    own = implementations / package.system
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    write_instructions(
        own,
        system=package.system,
        implementation=package.implementation,
        description=package.description,
        record=next((log.record for log in package.logs if log.record), None),
        extra_names=[file.name for file in package.extra_files],
    )
    for file in package.extra_files:
        if (own / file.name).exists():
            raise BenchmarkError(
                f"{file}: the system's folder has a file of this name already; give it another one"
            )
        shutil.copyfile(file, own / file.name)
        shutil.copymode(file, own / file.name)


def _write_results(logs: Sequence[RunLog], folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for log in logs:
        shutil.copyfile(log.path, folder / f"{log.name}.txt")
        if log.power_files:
            power = folder / POWER_FOLDER / log.name
            power.mkdir(parents=True)
            for file in log.power_files:
                shutil.copyfile(file, power / file.name)
