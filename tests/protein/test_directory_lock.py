"""The lock of a directory: one process at a time, released by death, refused without locks."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openfold_opt.protein.directory_lock import LOCK_FILE, LockError, lock_holder, take_lock

ROOT = Path(__file__).resolve().parents[2]
# A lock of the same process would not conflict, so another process holds it.
HOLDER = """
import sys, pathlib
from openfold_opt.protein.directory_lock import take_lock
lock = take_lock(pathlib.Path(sys.argv[1]), name="the directory")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_one_process_holds_a_directory_until_it_dies(tmp_path, holder):
    name = f"process {holder.pid} on "
    assert lock_holder(tmp_path).startswith(name)
    with pytest.raises(LockError, match=f"the folder is in use by a live run .{name}"):
        take_lock(tmp_path, name="the folder")
    holder.kill()
    holder.wait()
    assert lock_holder(tmp_path) is None
    with take_lock(tmp_path, name="the folder"):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} on ")


def test_a_directory_without_a_lock_file_has_no_holder(tmp_path):
    assert lock_holder(tmp_path) is None and not list(tmp_path.iterdir())


def test_a_lock_file_that_its_holder_removed_is_not_used(tmp_path, monkeypatch):
    """A process that opens the file just before the holder removes it gets a lock of nothing."""
    opened = []

    def lockf(file, *_):
        opened.append(file.name)
        if len(opened) == 1:
            os.unlink(file.name)

    monkeypatch.setattr("openfold_opt.protein.directory_lock.fcntl.lockf", lockf)
    with take_lock(tmp_path, name="the folder") as lock:
        assert len(opened) == 2
        assert os.path.samestat(os.fstat(lock.fileno()), (tmp_path / LOCK_FILE).stat())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("openfold_opt.protein.directory_lock.fcntl.lockf", refuse)
    with pytest.raises(LockError, match="of the folder has no locks .*another file system"):
        take_lock(tmp_path, name="the folder")
    assert not list(tmp_path.iterdir())
