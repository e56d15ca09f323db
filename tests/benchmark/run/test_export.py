"""A checkpoint as the published file, which another run can start from."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmark.__main__ import main
from openfold_opt.model.published_weights import read_weights
from openfold_opt.train.checkpoint.checkpoint_store import load_checkpoint

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    command = [
        sys.executable,
        "-m",
        "tests.support.tiny_benchmark",
        "run",
        "--preset",
        "tiny",
        "--data-dir",
        ".",
        "--output-dir",
    ]
    assert (
        subprocess.run([*command, str(folder)], cwd=ROOT, timeout=120).returncode == 1
    )  # out of steps
    return folder


@pytest.fixture(autouse=True)
def known_preset(monkeypatch):
    from benchmark.run import settings
    from tests.support.tiny_benchmark import build_tiny

    monkeypatch.setattr(settings, "build_preset", build_tiny)


def test_the_file_has_the_content_of_the_checkpoint(run_dir, tmp_path, capsys):
    assert main(["export", str(run_dir), str(tmp_path / "weights.pt"), "--step", "8"]) == 0
    assert "step 8" in capsys.readouterr().out
    content = torch.load(tmp_path / "weights.pt", weights_only=True)
    snapshot = load_checkpoint(run_dir / "checkpoints" / "step_00000008")
    assert (
        content["iteration"] == 8
        and content["optimizer_state_dict"]["state"][0]["step"].item() == 8
    )
    for key, tensor in (
        ("alphafold_state_dict", "values"),
        ("weight_average_state_dict", "average"),
    ):
        views = snapshot.views(tensor)
        assert list(content[key]) == list(views)
        assert all(torch.equal(content[key][name], view) for name, view in views.items())


@pytest.mark.parametrize("form", ["alphafold", "openfold", "safetensors"])
def test_the_published_forms_have_the_averaged_weights(run_dir, tmp_path, capsys, form):
    if form == "safetensors":
        pytest.importorskip("safetensors")
    snapshot = load_checkpoint(run_dir / "checkpoints" / "step_00000008")
    for which, tensor in (("average", "average"), ("trained", "values")):
        path = tmp_path / which
        options = ["--format", form, "--weights", which, "--step", "8"]
        assert main(["export", str(run_dir), str(path), *options]) == 0
        shown = capsys.readouterr().out
        assert f"(run directory, {which.replace('average', 'averaged')} weights of step 8)" in shown
        state = read_weights(path, model_config=run_dir / "config.json").state
        views = snapshot.views(tensor)
        assert list(state) == list(views)
        assert all(torch.equal(state[name], view) for name, view in views.items())


def test_a_file_of_weights_is_converted(run_dir, tmp_path, capsys):
    sizes = ["--model-config", str(run_dir / "config.json")]
    first, second = tmp_path / "first.npz", tmp_path / "second.pt"
    assert main(["export", str(run_dir), str(first), "--format", "alphafold"]) == 0
    assert main(["export", str(first), str(second), "--format", "openfold", *sizes]) == 0
    assert "first.npz (AlphaFold parameters) written to" in capsys.readouterr().out
    states = [
        read_weights(path, model_config=run_dir / "config.json").state for path in (first, second)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    third = tmp_path / "third.pt"
    assert main(["export", str(first), str(third), "--format", "openfold"]) == 2
    assert "give them with --model-config FILE" in capsys.readouterr().err


def test_a_full_disk_is_named_and_nothing_is_left(run_dir, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert main(["export", str(run_dir), str(tmp_path / "weights.pt")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "weights.pt: File too large; no incomplete file was left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_refusals(run_dir, tmp_path, capsys):
    existing = tmp_path / "file"
    existing.touch()
    for arguments, message in (
        ([str(run_dir), str(existing)], "exists already"),
        ([str(tmp_path), str(tmp_path / "new")], "expected the output directory of a run"),
        ([str(run_dir), str(tmp_path / "new"), "--step", "3"], "is not a complete checkpoint"),
        ([str(run_dir), str(tmp_path / "none" / "new")], "create it first"),
    ):
        assert main(["export", *arguments]) == 2
        assert message in capsys.readouterr().err
