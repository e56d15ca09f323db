"""Messages about locks, permissions, pipes and locales."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from data_prep.__main__ import main
from openfold_opt.protein import shard_format
from openfold_opt.protein.shard_files import StructureShard
from openfold_opt.protein.shard_format import ShardError
from tests.support import raw_data

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return a data directory that any user may read and only its owner may write."""
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        raw = raw_data.write_raw_data(Path(top) / "raw")
        assert main(raw_data.convert_arguments(raw, Path(top) / "data")) == 0
        yield Path(top) / "data"


@contextmanager
def without_privileges(*protected: Path, mode: int) -> Iterator[None]:
    """Set the mode of paths. Root, which ignores modes, changes to another user meanwhile."""
    before = [path.stat().st_mode for path in protected]
    is_root = os.geteuid() == 0
    for path in protected:
        path.chmod(mode)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, old in zip(protected, before, strict=True):
            path.chmod(old)


def test_locked_shard_is_not_reported_as_damaged(data_dir, monkeypatch):
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    shard = data_dir / "structures-00000.h5"
    command = [sys.executable, "-m", "data_prep", "inspect", str(data_dir), "1abc_A"]
    with shard.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        locked = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        unlocked_env = {**os.environ, "HDF5_USE_FILE_LOCKING": "FALSE"}
        ignoring = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, env=unlocked_env
        )
    assert ignoring.returncode == 0
    if locked.returncode == 0:
        pytest.skip("this HDF5 does not lock files")
    assert f"{shard} is locked by another program" in locked.stderr
    assert "HDF5_USE_FILE_LOCKING=FALSE" in locked.stderr and "remove" not in locked.stderr


def test_shard_without_permission_is_not_reported_as_damaged(data_dir):
    shard = data_dir / "structures-00000.h5"
    with without_privileges(shard, mode=0):
        with pytest.raises(ShardError) as caught:
            StructureShard(shard)
    assert "cannot be opened: Permission denied" in str(caught.value) and "remove" not in str(
        caught.value
    )


def test_too_many_open_files_are_not_reported_as_damage(data_dir, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(
        ShardError, match="Too many open files. The file need not be damaged: raise the limit"
    ):
        shard_format.open_checked(data_dir / "index.h5")


def test_verify_in_a_folder_without_write_permission(data_dir, capsys):
    with without_privileges(data_dir, mode=0o555):
        assert main(["verify", str(data_dir), "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "all as written" in captured.out
    assert (
        "The shards are intact, but the record of it could not be written: Permission denied"
        in captured.err
    )
    assert main(["verify", str(data_dir), "--threads", "1"]) == 0
    with without_privileges(data_dir, mode=0o555):
        capsys.readouterr()
        assert main(["verify", str(data_dir), "--threads", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_verify_of_a_shard_without_permission(data_dir, capsys):
    shard = data_dir / "alignments-00000.h5"
    with without_privileges(shard, mode=0):
        assert main(["verify", str(data_dir), "--threads", "1"]) == 1
    error = capsys.readouterr().err
    assert "1 of 2 shards cannot be read" in error and f"{shard}: Permission denied" in error
    assert "Remove" not in error and "are bad" not in error


def test_closed_pipe_prints_no_error(data_dir):
    command = [sys.executable, "-m", "data_prep", "inspect", str(data_dir), "--chains"]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


@pytest.mark.parametrize("encoding", [{}, {"PYTHONIOENCODING": "ascii"}])
def test_path_that_the_locale_cannot_encode(tmp_path, encoding):
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **encoding}
    raw = raw_data.write_raw_data(tmp_path / "caf\xe9")
    finished = raw_data.run_convert(raw, tmp_path / "\xf6ut", env)
    assert (
        finished.returncode == 0
        and "2 chains of 2 entries" in finished.stdout
        and finished.stderr == ""
    )


def test_list_of_chains_and_messages_for_absent_ones(data_dir, capsys):
    capsys.readouterr()
    assert main(["inspect", str(data_dir), "--chains"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == [
        "chain",
        "residues",
        "rows",
        "template_hits",
        "cluster",
        "released",
        "alignment",
    ]
    assert (
        lines[1].split("\t") == ["1abc_A", "22", "2", "1", "1", "2001-02-03", "1abc_A"]
        and len(lines) == 3
    )
    assert main(["inspect", str(data_dir)]) == 0
    assert "query alone         1 chains without another row, 0 of them" in capsys.readouterr().out
    for chain_id, hint in (("1ABC_A", "there are 1abc_A"), ("2abc_C", "there are 2abc_A")):
        assert main(["inspect", str(data_dir), chain_id]) == 1
        assert hint in capsys.readouterr().err
    assert main(["inspect", str(data_dir), "1abc_A", "--chains"]) == 1


def test_an_output_that_cannot_be_created_is_named_without_a_number(tmp_path, capsys):
    raw = raw_data.write_raw_data(tmp_path / "raw")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    for arguments in (raw_data.convert_arguments(raw, out), ["synthesize", "--out", str(out)]):
        assert main(arguments) == 1
        message = capsys.readouterr().err.splitlines()[-1]
        assert str(out) in message and "Not a directory" in message and "Errno" not in message
