"""The output directory of a prediction: one run at a time, and only chains of the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openfold_opt.predict.chain_record import ChainRecord, other_version, read_record
from openfold_opt.predict.file_names import RECORD_SUFFIX, STRUCTURE, SUFFIXES, TEMPORARY_SUFFIX
from openfold_opt.predict.models import ChainJob
from openfold_opt.predict.output_files import is_full_disk, temporary_patterns
from openfold_opt.predict.run_settings import Value
from openfold_opt.predict.summary import describe_differences, read_identity
from openfold_opt.protein.directory_lock import LOCK_FILE, LockError, take_lock

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainInput


class OutputFolder:
    """An output directory whose lock this process holds. Only rank 0 opens it."""

    def __init__(self, path: Path) -> None:
        """Create the directory and take its lock.

        Raises:
            ValueError: the path is a file, the directory cannot be created or written, or another
                live run uses it.
        """
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out {path} is a file; name a directory")
        self._new_folders = [folder for folder in (path, *path.parents) if not folder.exists()]
        self._has_new_lock = not (path / LOCK_FILE).exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(path, name=f"--out {path}")
        except LockError:
            self._remove_new_folders()
            raise
        except OSError as error:
            self._remove_new_folders()
            if is_full_disk(error):
                raise
            raise ValueError(
                f"--out {path} cannot be used: {error.strerror} ({error.filename}); name a "
                "directory that can be created and written"
            ) from error
        self.path = path

    def check_run(self, identity: Mapping[str, Value], *, overwrite: bool) -> None:
        """Check that the directory holds no other run, and remove temporary files.

        Raises:
            ValueError: the directory holds a run with other weights or settings.
        """
        if not overwrite:
            earlier = read_identity(self.path)
            differences = describe_differences(earlier, identity) if earlier is not None else ""
            if differences:
                raise ValueError(
                    f"--out {self.path} holds another run: {differences}; choose another "
                    "directory, repeat the command of that run, or replace it with --overwrite"
                )
        for pattern in (*temporary_patterns(), f"*{RECORD_SUFFIX}{TEMPORARY_SUFFIX}"):
            # Other temporary files are not ours.
            for leftover in self.path.glob(pattern):
                if not leftover.is_dir():
                    leftover.unlink(missing_ok=True)

    def remaining(
        self,
        jobs: Sequence[ChainJob],
        *,
        run_id: str,
        overwrite: bool,
        hash_inputs: Callable[[ChainInput], str],
    ) -> dict[str, str]:
        """Return the stems of the chains to predict, each with a note for the user, or "".

        Args:
            jobs: all chains.
            run_id: that of this run; a result of another run is not reused.
            overwrite: whether to predict finished chains again.
            hash_inputs: returns the hash of the alignments of a chain; a result from others is not
                reused.

        Raises:
            ValueError: the directory has files of another chain with the same name, a structure
                that no run wrote, a record of another version, or a directory with the name of a
                result.
        """
        for job in jobs:
            self._refuse_directories(job.stem)
        if overwrite:
            return {job.stem: "" for job in jobs}
        is_run = read_identity(self.path) is not None
        remaining = {}
        for job in jobs:
            self._refuse_other_version(job.stem)
            record = read_record(self.path, job.stem)
            if record is None and not is_run:
                self._refuse_foreign_files(job.stem)
            if record is None or record.status != "finished":
                remaining[job.stem] = ""
                continue
            self._refuse_other_chain(record, job)
            if record.run_id != run_id or not record.is_complete(self.path):
                remaining[job.stem] = ""
            elif record.input_hash != hash_inputs(job.chain):
                remaining[job.stem] = (
                    f"{job.chain.name} is predicted again: its alignments have changed since its "
                    "prediction"
                )
        return remaining

    def _refuse_other_version(self, stem: str) -> None:
        version = other_version(self.path, stem)
        if version is not None:
            raise ValueError(
                f"{self.path / (stem + RECORD_SUFFIX)} has the schema version {version}, which "
                "this version of the package cannot read; choose another --out, or replace the "
                "results with --overwrite"
            )

    def _refuse_other_chain(self, record: ChainRecord, job: ChainJob) -> None:
        name, sequence = job.chain.name, job.chain.sequence
        if (record.name, record.sequence) != (name, sequence):
            raise ValueError(
                f"--out {self.path} has results of {record.name} "
                f"({record.num_residues} residues) in {job.stem}{RECORD_SUFFIX}, which differs "
                f"from chain {name} ({len(sequence)} residues) in name or sequence; choose "
                "another directory, or replace the results with --overwrite"
            )

    def check_unusable(self, chains: Sequence[tuple[str, str, str]]) -> None:
        """Check that no result would be replaced by the failure of a chain with a wrong input.

        Args:
            chains: (name, stem, what is wrong) of every chain that cannot be predicted.

        Raises:
            ValueError: such a chain, or another one with its file name, has a result.
        """
        for name, stem, message in chains:
            record = read_record(self.path, stem)
            if record is not None and record.status == "finished":
                raise ValueError(
                    f"--out {self.path} has the result of chain {record.name} in "
                    f"{stem}{RECORD_SUFFIX}, but chain {name} cannot be predicted now: {message}; "
                    "correct or remove this chain of the input, choose another directory, or "
                    "remove the result with --overwrite"
                )

    def close(self) -> None:
        """Release the lock. Remove the lock file and the directory if this run left only these."""
        is_unused = [path.name for path in self.path.glob("*")] == [LOCK_FILE]
        if self._has_new_lock and is_unused:
            # The lock is held until then, so no other run can have taken it.
            (self.path / LOCK_FILE).unlink()
            self._remove_new_folders()
        self._lock.close()

    def _remove_new_folders(self) -> None:
        """Remove the directories that this run created, as far as they are empty."""
        for folder in self._new_folders:
            if not folder.is_dir() or any(folder.iterdir()):
                return
            folder.rmdir()

    def _refuse_directories(self, stem: str) -> None:
        for suffix in (*SUFFIXES.values(), RECORD_SUFFIX):
            path = self.path / (stem + suffix)
            if path.is_dir():
                raise ValueError(
                    f"{path} is a directory, and a result has this name; choose another --out, or "
                    "move the directory"
                )

    def _refuse_foreign_files(self, stem: str) -> None:
        for suffix in (SUFFIXES[STRUCTURE], RECORD_SUFFIX):
            if (self.path / (stem + suffix)).exists():
                raise ValueError(
                    f"{self.path / (stem + suffix)} exists and is not the result of a prediction; "
                    "choose another --out, or replace the file with --overwrite"
                )
