"""Conversion under MPI and after a kill gives the bytes of one uninterrupted process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def convert_command(shared: Path, out: Path) -> list[str]:
    data = shared / "data" / "real"
    options = [
        "--pdb-mmcif",
        data / "pdb_mmcif",
        "--open-protein-set",
        data / "open_protein_set",
        "--out",
        out,
        "--shard-size-mib",
        "1",
    ]
    return [sys.executable, "-m", "data_prep", "convert", *map(str, options)]


def all_bytes(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def serial(shared, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("serial") / "out"
    subprocess.run(convert_command(shared, out), cwd=PROJECT, check=True, capture_output=True)
    return all_bytes(out)


def mpiexec() -> str:
    found = str(MPIEXEC) if MPIEXEC.is_file() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("no mpiexec (extra `mpi`)")
    pytest.importorskip("mpi4py")
    return found


def test_two_processes_give_the_same_bytes(shared, serial, tmp_path):
    command = [mpiexec(), "-n", "2", *convert_command(shared, tmp_path / "out")]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=120)
    assert all_bytes(tmp_path / "out") == serial
    assert sum(name.startswith("structures-") for name in serial) > 1


def test_an_error_ends_all_processes(shared, tmp_path):
    command = [mpiexec(), "-n", "2", *convert_command(shared, tmp_path / "out")]
    command[command.index("--open-protein-set") + 1] = str(tmp_path)
    (tmp_path / "pdb").mkdir()
    (tmp_path / "duplicate_pdb_chains.txt").write_text("")
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert finished.returncode != 0
    assert finished.stderr.count("88 of 88 chains have no alignment folder") == 1
    assert "Traceback" not in finished.stderr


def python_ranks(launcher: subprocess.Popen) -> list[int]:
    """Return the process ids of the ranks of an mpiexec."""
    found, parents = [], [launcher.pid]
    while parents:
        children = Path(f"/proc/{parents[0]}/task/{parents.pop(0)}/children").read_text().split()
        for child in map(int, children):
            is_rank = (
                "data_prep" in Path(f"/proc/{child}/cmdline").read_text()
                and "mpiexec" not in Path(f"/proc/{child}/cmdline").read_text()
            )
            (found if is_rank else parents).append(child)
    return found


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_rank_loses_only_its_shard(shared, serial, tmp_path, victim):
    out = tmp_path / "out"
    command = [mpiexec(), "-n", "2", *convert_command(shared, out)]
    launcher = subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while launcher.poll() is None and not (out / "structures-00001.h5").exists():
        time.sleep(0.002)
    os.kill(sorted(python_ranks(launcher))[victim], signal.SIGKILL)
    assert launcher.wait(timeout=60) != 0
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    assert before and "index.h5" not in before
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=120)
    untouched = [name for name, mtime in before.items() if (out / name).stat().st_mtime_ns == mtime]
    assert len(untouched) >= len(before) - 2
    found = all_bytes(out)
    assert {name: found[name] for name in found if not name.endswith(".tmp")} == serial
    verify = [sys.executable, "-m", "data_prep", "verify", str(out)]
    subprocess.run(verify, cwd=PROJECT, check=True, capture_output=True)


def test_verify_on_two_processes(shared, tmp_path):
    out = tmp_path / "out"
    subprocess.run(convert_command(shared, out), cwd=PROJECT, check=True, capture_output=True)
    verify = [
        mpiexec(),
        "-n",
        "2",
        sys.executable,
        "-m",
        "data_prep",
        "verify",
        str(out),
        "--threads",
        "1",
    ]
    finished = subprocess.run(verify, cwd=PROJECT, check=True, capture_output=True, text=True)
    assert finished.stdout.count("all as written") == 1 and (out / "verified.json").is_file()
    for shard in sorted(out.glob("*-*.h5")):
        with shard.open("r+b") as file:
            file.seek(3000)
            byte = file.read(1)
            file.seek(3000)
            file.write(bytes([byte[0] ^ 1]))
    finished = subprocess.run(verify, cwd=PROJECT, capture_output=True, text=True)
    names = [path.name for path in sorted(out.glob("alignments-*.h5"))] + [
        path.name for path in sorted(out.glob("structures-*.h5"))
    ]
    assert finished.returncode != 0 and not (out / "verified.json").exists()
    lines = [line for line in finished.stderr.splitlines() if "has sha256" in line]
    assert [Path(line.split()[0]).name for line in lines] == sorted(
        names, key=lambda name: (name.startswith("alignments"), name)
    )


@pytest.mark.parametrize("shard_before_kill", ["structures-00001.h5", "alignments-00000.h5"])
def test_killed_and_resumed(shared, serial, tmp_path, shard_before_kill):
    out = tmp_path / "out"
    process = subprocess.Popen(
        convert_command(shared, out),
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (out / shard_before_kill).exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    assert "index.h5" not in before
    resumed = subprocess.run(
        convert_command(shared, out), cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert "shards are finished already" in resumed.stderr
    untouched = [name for name, mtime in before.items() if (out / name).stat().st_mtime_ns == mtime]
    assert len(untouched) >= len(before) - 1
    found = all_bytes(out)
    leftovers = {name for name in found if name.endswith(".tmp")}
    assert {name: found[name] for name in found if name not in leftovers} == serial


def test_smaller_data_set_removes_old_shards(shared, serial, tmp_path):
    out = tmp_path / "out"
    command = convert_command(shared, out)
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    command[-1] = "256"
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert sorted(path.name for path in out.glob("*.h5")) == [
        "alignments-00000.h5",
        "index.h5",
        "structures-00000.h5",
    ]
    command[-1] = "1"
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    assert all_bytes(out) == serial
