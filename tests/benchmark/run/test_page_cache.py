"""Dropping a data set from the page cache changes no byte of it and needs no right but to read."""

import os

import pytest

from benchmark.run import page_cache
from benchmark.run.page_cache import clear_page_cache


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "shard.h5").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "index.h5").write_bytes(b"index")
    return tmp_path


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_missing_file_says_so(folder):
    assert clear_page_cache([*files(folder), folder / "gone.h5"]) is False


def test_every_file_is_dropped_and_none_changed(folder, monkeypatch):
    dropped = []
    real = os.posix_fadvise

    def spy(descriptor, offset, length, advice):
        dropped.append((os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")), advice))
        return real(descriptor, offset, length, advice)

    monkeypatch.setattr(page_cache.os, "posix_fadvise", spy)
    assert clear_page_cache(files(folder)) is True
    assert sorted(dropped) == [
        ("index.h5", os.POSIX_FADV_DONTNEED),
        ("shard.h5", os.POSIX_FADV_DONTNEED),
    ]
    assert (folder / "sub" / "shard.h5").read_bytes() == bytes(range(256)) * 4096


def test_system_that_cannot_says_so(folder, monkeypatch):
    monkeypatch.delattr(page_cache.os, "posix_fadvise")
    assert clear_page_cache(files(folder)) is False


def test_no_file_stays_open(folder):
    before = len(os.listdir("/proc/self/fd"))
    clear_page_cache(files(folder))
    assert len(os.listdir("/proc/self/fd")) == before
