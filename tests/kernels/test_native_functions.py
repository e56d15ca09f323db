"""The library of loops: how it is made and kept, and what a call refuses."""

import os
import shutil
import stat

import pytest
import torch

from openfold_opt.kernels.cpu import library, native_functions
from openfold_opt.kernels.cpu.native_functions import NATIVE_FUNCTIONS, call

pytestmark = pytest.mark.compiler


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """Folders of a machine that has no library yet."""
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(library, "_folders", lambda: iter(folders))
    library.library.cache_clear()
    yield folders
    library.library.cache_clear()


def test_it_is_compiled_once_and_kept(anew, monkeypatch):
    assert library.library().loops_of_float32 is not None
    (kept,) = anew[0].iterdir()
    library.library.cache_clear()
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("compiled again"))
    library.library()
    assert list(anew[0].iterdir()) == [kept] and not anew[1].exists()


def test_a_folder_that_cannot_be_written_is_passed_over(anew):
    anew[0].write_text("a file where the folder should be")
    library.library()
    assert len(list(anew[1].iterdir())) == 1


def test_where_nothing_can_be_written_the_error_names_the_folders(anew):
    for folder in anew:
        folder.write_text("a file where the folder should be")
    with pytest.raises(
        library.LibraryError,
        match="kept in none of .*first .*, .*second .*: make one of them writable",
    ):
        library.library()


def test_a_compiler_that_fails_is_quoted(anew, monkeypatch, tmp_path):
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'it does not know this processor' >&2\nexit 3\n")
    broken.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(library, "COMPILERS", ("broken-c++",))
    with pytest.raises(
        library.LibraryError, match="(?s)ended with exit code 3:.it does not know this processor"
    ):
        library.library()
    assert not anew[0].exists(), "nothing half-made is left"


def test_other_sources_are_another_library(monkeypatch, tmp_path):
    before = library._key("c++")
    for path in library.SOURCES.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    assert library._key("c++") == before
    (tmp_path / "rows.h").write_text("// changed")
    assert library._key("c++") != before


def test_a_library_that_cannot_be_loaded_is_made_anew(anew):
    compiler = next(filter(None, map(shutil.which, library.COMPILERS)))
    kept = anew[0] / f"loops-{library._key(compiler)}.so"
    anew[0].mkdir()
    kept.write_bytes(b"cut short")
    assert library.library().loops_of_float32 is not None
    assert kept.stat().st_size > 10_000 and not anew[1].exists()


def test_a_compiler_that_cannot_be_started_is_named(anew, monkeypatch, tmp_path):
    (tmp_path / "no-program").write_text("neither script nor program")
    (tmp_path / "no-program").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(library, "COMPILERS", ("no-program",))
    with pytest.raises(library.LibraryError, match="no-program cannot be started"):
        library.library()


def test_without_a_home_there_are_other_folders(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert [folder.name for folder in library._folders()] == [
        "built",
        f"openfold_opt-{os.getuid()}",
    ]


@pytest.mark.parametrize(
    ("rows", "offset"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.bfloat16)),
        (torch.zeros(3, 2).t(), torch.zeros(3)),
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(2, 2), torch.zeros(3)),
        (torch.zeros(2, 3), None),
    ],
    ids=["two types", "not contiguous", "another type", "too short", "too few rows", "missing"],
)
def test_a_tensor_that_a_loop_cannot_take_is_refused(rows, offset):
    with pytest.raises(
        ValueError, match="loop add_to_rows, argument [01]: found|work on float32 and bfloat16"
    ):
        call("add_to_rows", rows, offset, 2, 3)


def test_on_meta_nothing_is_done(monkeypatch):
    asked = []
    monkeypatch.setattr(native_functions, "_functions", asked.append)
    call("add_to_rows", torch.zeros(2, 3, device="meta"), torch.zeros(3, device="meta"), 2, 3)
    assert asked == []


def test_every_loop_of_the_list_is_in_the_library():
    for element in (torch.float32, torch.bfloat16):
        assert set(native_functions._functions(element)) == set(NATIVE_FUNCTIONS)


@pytest.mark.parametrize("value", [-200.0, -87.4, -20.0, -1e-4, 0.0, 0.3, 20.0, 87.0, 200.0])
def test_the_exponential_is_that_of_pytorch(value):
    logits = torch.tensor([[[[value, 0.0]]]]).repeat(1, 1, 2, 1)
    expected = torch.softmax(logits, -1)
    call("softmax", logits, torch.zeros(1, 2), None, 1.0, 1, 1, 2)
    torch.testing.assert_close(logits, expected, rtol=3e-7, atol=2e-38)
