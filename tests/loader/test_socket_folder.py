"""A long TMPDIR: the fork server uses sockets in a short folder, or an error names the limit."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from openfold_opt.loader import socket_folder
from openfold_opt.loader.socket_folder import use_short_socket_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import numpy as np
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.workers import WorkerStream
class Task:
    def __call__(self, position):
        return position, {"x": np.zeros(3)}
    def describe(self, position):
        return str(position)
if __name__ == "__main__":
    import multiprocessing.util, tempfile
    config = LoaderConfig(num_workers=1, start_method="forkserver")
    with WorkerStream(Task(), config=config, end=2) as stream:
        print([delivery.position for delivery in stream])
    print(tempfile.gettempdir())
    print(multiprocessing.util.get_temp_dir())
"""


def long_folder(parent: pathlib.Path) -> pathlib.Path:
    """Create a folder whose path has at least 120 characters."""
    folder = parent / ("x" * max(120 - len(str(parent)) - 1, 1))
    folder.mkdir()
    assert len(str(folder)) >= 120
    return folder


def test_workers_start_under_a_long_tmpdir(tmp_path):
    folder = long_folder(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    positions, temporary, sockets = ended.stdout.splitlines()
    assert positions == "[0, 1]" and ended.stderr == ""
    # Everything else still uses TMPDIR.
    assert temporary == str(folder)
    assert sockets.startswith(socket_folder.SHORT_FOLDERS) and not os.path.exists(sockets)


def test_missing_short_folder_is_an_error(tmp_path, monkeypatch):
    folder = long_folder(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(socket_folder, "SHORT_FOLDERS", ("/no-such-folder",))
    with pytest.raises(
        ValueError,
        match=r"TMPDIR.*at most 75 bytes.*none of /no-such-folder is writable; set TMPDIR",
    ):
        use_short_socket_folder()
    assert tempfile.gettempdir() == str(folder)


def test_short_tmpdir_is_not_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(socket_folder, "SHORT_FOLDERS", ())
    use_short_socket_folder()
    assert tempfile.gettempdir() == "/tmp"
