"""Files of torch.save: what is refused, and that no code in them runs."""

import argparse
import os
import pickle

import pytest
import torch

from openfold_opt.model.published_weights.torch_file import read_torch_file
from openfold_opt.model.weights import WeightsError


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"these are not weights")
    with pytest.raises(WeightsError, match="is not a checkpoint"):
        read_torch_file(path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds a list, expected a dict"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; fetch it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "it begins with b'version https://git-'; expected a file of torch.save",
        ),
        (pickle.dumps({"alphafold_state_dict": {}}), "expected a file of torch.save"),
    ],
    ids=["empty", "pointer", "pickle"],
)
def test_what_is_no_checkpoint_is_refused_without_advice_to_load_it(tmp_path, content, reason):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match="is not a checkpoint that torch.load can read"
    ) as caught:
        read_torch_file(path)
    assert reason in str(caught.value) and "weights_only" not in str(caught.value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_class_that_is_not_allowed_is_named(tmp_path, is_zip):
    """Training scripts often save their arguments with the weights."""
    path = tmp_path / "weights.pt"
    content = {"alphafold_state_dict": {}, "args": argparse.Namespace(lr=1)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert "holds an object of the class argparse.Namespace" in message
    assert "\n" not in message and "\x1b" not in message


class Intruder:
    """An object whose pickle creates a file when it is loaded without the check."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pickle_never_runs(tmp_path, is_zip):
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    content = {"alphafold_state_dict": {"x": torch.ones(2)}, "extra": Intruder(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match=r"an object of the class posix.mkdir, which is not"):
        read_torch_file(path)
    assert not trace.exists()
    # The same file creates the folder if it is loaded without the check.
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_file_that_was_cut_short_is_named(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"x": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="it was cut short, so fetch it again"):
        read_torch_file(path)


def test_a_damaged_tensor_is_found(tmp_path):
    path = tmp_path / "damaged.pt"
    torch.save({"w": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="is damaged: the checksum of .* is wrong"):
        read_torch_file(path)


def test_text_is_refused_with_a_reason(tmp_path):
    path = tmp_path / "text.pt"
    path.write_text("hello world")
    with pytest.raises(WeightsError, match="it begins with b'hello world'"):
        read_torch_file(path)
