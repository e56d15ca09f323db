"""Native library of the CPU kernels: compilation, cache, and checks of arguments."""

import os
import shutil
import stat

import pytest
import torch

from openfold_opt.kernels.cpu import library, native_functions
from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.native_signatures import NATIVE_FUNCTIONS

pytestmark = pytest.mark.compiler


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """Return the cache folders of a machine without a library."""
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(library, "_folders", lambda: iter(folders))
    library.library.cache_clear()
    yield folders
    library.library.cache_clear()


def test_the_library_is_compiled_once_and_cached(empty_cache, monkeypatch):
    assert library.library().kernels_float32 is not None
    (cached,) = empty_cache[0].iterdir()
    library.library.cache_clear()
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("compiled a second time"))
    library.library()
    assert list(empty_cache[0].iterdir()) == [cached] and not empty_cache[1].exists()


def test_a_folder_that_cannot_be_written_is_skipped(empty_cache):
    empty_cache[0].write_text("a file where the folder should be")
    library.library()
    assert len(list(empty_cache[1].iterdir())) == 1


def test_if_no_folder_can_be_written_the_error_names_all_of_them(empty_cache):
    for folder in empty_cache:
        folder.write_text("a file where the folder should be")
    with pytest.raises(
        library.LibraryError,
        match="stored in any of .*first .*, .*second .*: make one of them writable",
    ):
        library.library()


def test_the_error_quotes_a_failing_compiler(empty_cache, monkeypatch, tmp_path):
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'it does not know this processor' >&2\nexit 3\n")
    broken.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(library, "COMPILERS", ("broken-c++",))
    with pytest.raises(
        library.LibraryError, match="(?s)ended with exit code 3:.it does not know this processor"
    ):
        library.library()
    assert not empty_cache[0].exists(), "no partial file may remain"


def test_changed_sources_have_another_key(monkeypatch, tmp_path):
    before = library._key("c++")
    for path in library.SOURCES.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    assert library._key("c++") == before
    (tmp_path / "rows.h").write_text("// changed")
    assert library._key("c++") != before


def test_a_library_that_cannot_be_loaded_is_replaced(empty_cache):
    compiler = next(filter(None, map(shutil.which, library.COMPILERS)))
    cached = empty_cache[0] / f"kernels-{library._key(compiler)}.so"
    empty_cache[0].mkdir()
    cached.write_bytes(b"truncated")
    assert library.library().kernels_float32 is not None
    assert cached.stat().st_size > 10_000 and not empty_cache[1].exists()


def test_the_error_names_a_compiler_that_cannot_be_started(empty_cache, monkeypatch, tmp_path):
    (tmp_path / "no-program").write_text("neither script nor program")
    (tmp_path / "no-program").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(library, "COMPILERS", ("no-program",))
    with pytest.raises(library.LibraryError, match="no-program cannot be started"):
        library.library()


def test_without_a_home_folder_other_folders_are_used(monkeypatch):
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
def test_an_invalid_tensor_argument_is_rejected(rows, offset):
    with pytest.raises(
        ValueError,
        match="CPU kernel add_to_rows, argument [01]: found|work on float32 and bfloat16",
    ):
        call("add_to_rows", rows, offset, 2, 3)


def test_a_call_on_meta_tensors_does_nothing(monkeypatch):
    calls = []
    monkeypatch.setattr(native_functions, "_functions", calls.append)
    call("add_to_rows", torch.zeros(2, 3, device="meta"), torch.zeros(3, device="meta"), 2, 3)
    assert calls == []


def test_the_library_has_every_listed_function():
    for element in (torch.float32, torch.bfloat16):
        assert set(native_functions._functions(element)) == set(NATIVE_FUNCTIONS)


@pytest.mark.parametrize("value", [-200.0, -87.4, -20.0, -1e-4, 0.0, 0.3, 20.0, 87.0, 200.0])
def test_the_exponential_matches_pytorch(value):
    logits = torch.tensor([[[[value, 0.0]]]]).repeat(1, 1, 2, 1)
    expected = torch.softmax(logits, -1)
    call("softmax", logits, torch.zeros(1, 2), None, 1.0, 1, 1, 2)
    torch.testing.assert_close(logits, expected, rtol=3e-7, atol=2e-38)
