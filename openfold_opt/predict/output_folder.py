"""The output directory of a prediction: one run at a time, and only chains of the same run."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from openfold_opt.predict.chain_record import (
    RECORD_SUFFIX,
    read_record,
    remove_chain,
)
from openfold_opt.predict.output_files import (
    STRUCTURE,
    SUFFIXES,
    TEMPORARY_SUFFIX,
    is_full_disk,
    naming_file,
)
from openfold_opt.predict.run_settings import Value
from openfold_opt.predict.summary import describe_differences, read_identity

LOCK_FILE = "run.lock"


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
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(path)
        except OSError as error:
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
        for suffix in (*SUFFIXES.values(), RECORD_SUFFIX):
            # Other temporary files are not ours.
            for leftover in self.path.glob(f"*{suffix}{TEMPORARY_SUFFIX}"):
                if not leftover.is_dir():
                    leftover.unlink(missing_ok=True)

    def remaining(
        self, chains: Sequence[tuple[str, str, str]], *, run_id: str, overwrite: bool
    ) -> set[str]:
        """Return the stems of the chains that are not finished.

        Args:
            chains: (name, sequence, stem) of every chain.
            run_id: that of this run; a result of another run is not reused.
            overwrite: whether to predict finished chains again.

        Raises:
            ValueError: the directory has files of another chain with the same name, a structure
                that no run wrote, or a directory with the name of a result.
        """
        for _, _, stem in chains:
            self._refuse_directories(stem)
        if overwrite:
            return {stem for _, _, stem in chains}
        is_run = read_identity(self.path) is not None
        remaining = set()
        for name, sequence, stem in chains:
            record = read_record(self.path, stem)
            if record is None and not is_run:
                self._refuse_foreign_files(stem)
            is_result = record is not None and record.status == "finished"
            if is_result and (record.name, record.sequence) != (name, sequence):
                raise ValueError(
                    f"--out {self.path} has results of {record.name} "
                    f"({record.num_residues} residues) in {stem}{RECORD_SUFFIX}, which differs "
                    f"from chain {name} ({len(sequence)} residues) in name or sequence; choose "
                    "another directory, or replace the results with --overwrite"
                )
            if record is None or record.run_id != run_id or not record.is_complete(self.path):
                remaining.add(stem)
        return remaining

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
        """Release the lock."""
        self._lock.close()

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


def remove_results(folder: Path, stem: str) -> None:
    """Remove the earlier results of a chain that is predicted again."""
    record = read_record(folder, stem)
    if record is not None:
        remove_chain(folder, record)


def _take_lock(path: Path) -> IO[str]:
    """Lock the directory for this process; the kernel releases the lock when the process ends."""
    lock = open(path / LOCK_FILE, "a+", encoding="utf-8")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        lock.seek(0)
        owner = lock.read().strip() or "unknown process"
        lock.close()
        raise ValueError(
            f"--out {path} is in use by another prediction ({owner}); wait for it, or choose "
            "another directory"
        ) from None
    except OSError:
        # A file system without locks: the user has to keep runs apart.
        return lock
    with naming_file(path / LOCK_FILE):
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
    return lock
