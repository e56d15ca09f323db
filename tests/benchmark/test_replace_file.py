"""A file is replaced as a whole, or not at all."""

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmark.replace_file import replace_text, save_picture
from openfold_opt.protein.replace_file import replacing


def test_a_file_is_created_and_replaced(tmp_path):
    path = tmp_path / "record.json"
    for text in ("first\n", "second: Ca\u03b1\n"):
        replace_text(path, text)
        assert path.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_with_the_name_of_the_file(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) as caught:
        replace_text(tmp_path / "run.json", "text")
    assert caught.value.filename == str(tmp_path / "run.json")
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_full_is_an_error_with_its_name():
    with pytest.raises(OSError, match="No space left") as caught:
        replace_text(Path("/dev/full"), "text")
    assert caught.value.filename == "/dev/full"


def test_a_picture_has_the_format_of_its_name_and_is_complete(tmp_path, monkeypatch):
    figure = Figure()
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")):
        save_picture(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=str(tmp_path / "b.png")):
        save_picture(figure, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_a_pipe_is_written_directly():
    reader, writer = os.pipe()
    replace_text(Path(f"/dev/fd/{writer}"), "text")
    os.close(writer)
    assert os.read(reader, 10) == b"text"
    os.close(reader)
