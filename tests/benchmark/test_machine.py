"""What a log says about versions and machine."""

import json
import os
import platform
import subprocess

import torch

from benchmark import machine
from benchmark.machine import describe_machine, describe_versions


def test_versions_are_those_that_run():
    versions = describe_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__
    assert versions["mlperf-logging"][0].isdigit()
    assert all(isinstance(value, str) and value for value in versions.values())


def test_library_that_is_absent_is_named(monkeypatch):
    monkeypatch.setattr(machine, "DISTRIBUTIONS", ("no-such-library",))
    assert describe_versions()["no-such-library"] == "not installed"


def test_commit_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    assert describe_versions()["commit"] == "not a checkout"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert describe_versions()["commit"] == head
    (tmp_path / "file").write_text("x")
    subprocess.run([*git, "add", "file"], check=True)
    assert describe_versions()["commit"] == f"{head}-dirty"


def test_commit_of_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    (tmp_path / "REVISION").write_text("0123abcd\n")
    assert describe_versions()["commit"] == "0123abcd"
    (tmp_path / "REVISION").write_text("unknown\n")
    assert describe_versions()["commit"] == "not a checkout", (
        "an image whose builder did not name it has no commit to look for"
    )


def test_machine_is_json():
    described = describe_machine()
    assert json.loads(json.dumps(described)) == described
    assert described["cpu_count"] == len(os.sched_getaffinity(0))
    assert described["memory_bytes"] > 2**30
    assert described["processor"]
