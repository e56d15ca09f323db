"""The parity command: golden directories, and its errors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.parity.comparison import Comparison, relative_error
from benchmark.parity.golden_config import model_config
from benchmark.parity.golden_losses import loss_config
from benchmark.parity.report import format_table
from openfold_opt.model.config import ModelConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(shared, tmp_path):
    """A writable copy of model_tiny without its trajectory, which takes most of the time."""
    target = tmp_path / "tiny"
    target.mkdir()
    for name in ("config.json", "weights.npz", "batch.npz", "outputs.npz", "grads.npz"):
        shutil.copy(shared / "golden" / "model_tiny" / name, target / name)
        (target / name).chmod(0o644)
    results = json.loads((shared / "golden" / "model_tiny" / "results.json").read_text())
    del results["trajectory"]
    (target / "results.json").write_text(json.dumps(results))
    return target


@pytest.mark.parametrize("name", ["model_tiny", "model_quirks", "model_full"])
def test_golden_directories_pass(shared, capsys, name):
    code = main(["parity", str(shared / "golden" / name)])
    text = capsys.readouterr().out
    assert code == 0, text
    assert "PASS" in text and "EXCEEDS" not in text
    if name == "model_tiny":
        for section in ("outputs:", "losses:", "gradients:", "trajectory:", "update:", "resumed:"):
            assert section in text
    if name == "model_full":
        assert "93,229,082 parameters in 5,044 tensors" in text
        assert "skipped, as the directory has no: outputs_no_recycling.npz, grads.npz" in text


@pytest.mark.compiler
def test_the_kernels_for_a_cpu_pass_with_the_trajectory(shared, capsys):
    assert main(["parity", "--kernels", "cpu", str(shared / "golden" / "model_tiny")]) == 0
    assert "trajectory: 88 of 88 within tolerance" in capsys.readouterr().out


def test_a_wrong_output_fails(tiny, capsys):
    arrays = dict(np.load(tiny / "outputs.npz"))
    arrays["pair"] = arrays["pair"] * 1.001
    np.savez(tiny / "outputs.npz", **arrays)
    assert main(["parity", str(tiny)]) == 1
    text = capsys.readouterr().out
    assert "FAIL: 1 beyond tolerance" in text
    assert any("pair" in line and "EXCEEDS" in line for line in text.splitlines())


def test_a_wrong_gradient_fails(tiny, capsys):
    arrays = dict(np.load(tiny / "grads.npz"))
    name = "structure_module.ipa.linear_q.weight"
    arrays[name] = arrays[name] * 1.01
    np.savez(tiny / "grads.npz", **arrays)
    assert main(["parity", str(tiny)]) == 1
    assert name in capsys.readouterr().out


def test_padding_is_not_compared(tiny, capsys):
    arrays = dict(np.load(tiny / "outputs.npz"))
    arrays["single"][0, 17:] = 1e6
    arrays["pair"][0, :, 17:] = 1e6
    arrays["msa"][0, :, 17:] = np.nan
    np.savez(tiny / "outputs.npz", **arrays)
    assert main(["parity", str(tiny)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", ["config.json", "weights.npz", "batch.npz", "results.json", "grads.npz"])
def test_a_garbled_file_is_an_error_that_names_it(tiny, capsys, name):
    (tiny / name).write_bytes(b"garbage")
    assert main(["parity", str(tiny)]) == 2
    assert name in capsys.readouterr().err


def test_weights_of_another_model_are_an_error(tiny, capsys):
    arrays = dict(np.load(tiny / "weights.npz"))
    del arrays["evoformer_stack.linear.bias"]
    np.savez(tiny / "weights.npz", **arrays)
    assert main(["parity", str(tiny)]) == 2
    assert "1 missing: evoformer_stack.linear.bias" in capsys.readouterr().err


def test_a_missing_directory_is_an_error(tmp_path, capsys):
    assert main(["parity", str(tmp_path / "none")]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_a_configuration_without_a_field_is_an_error(shared):
    golden = json.loads((shared / "golden" / "model_tiny" / "config.json").read_text())
    config = model_config(golden)
    assert config.auxiliary_heads.has_tm_score and config.structure_module.num_v_points == 5
    del golden["structure_module_config"]["eps"], golden["loss_config"]["tm_loss_config"]
    with pytest.raises(ValueError, match="config.json has no field 'eps'"):
        model_config(golden)
    with pytest.raises(ValueError, match="config.json has no field 'tm_loss_config'"):
        loss_config(golden)


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])) == pytest.approx(4.0 / 3.0)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0.0
    assert relative_error(float("nan"), 1.0) == float("inf")
    assert relative_error(torch.zeros(2), torch.zeros(3)) == float("inf")


def test_a_long_section_shows_its_largest_errors_and_every_failure():
    rows = [Comparison(section="s", name=f"row {i}", error=i * 1e-6, tolerance=80e-6) for i in range(100)]
    text = format_table(rows)
    assert "s: 81 of 100 within tolerance" in text
    assert text.count("EXCEEDS") == 19
    assert "row 5 " not in text


def test_the_default_model_is_that_of_the_benchmark():
    config = ModelConfig()
    assert (config.c_m, config.c_z, config.c_s, config.evoformer_stack.num_blocks) == (256, 128, 384, 48)


def test_a_dap_group_passes_under_torchrun(shared):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "benchmark", "parity"]
    shown = subprocess.run(
        [*command, "--dap", "2", str(shared / "golden" / "model_tiny")], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert shown.returncode == 0, shown.stdout[-3000:] + shown.stderr[-1000:]
    assert shown.stdout.count("spread over 2 ranks") == 1, "only the first rank speaks"
    for section in ("outputs: 23 of 23", "gradients: 677 of 677", "resumed: 45 of 45"):
        assert section in shown.stdout


def test_another_number_of_ranks_than_dap_says_is_refused(shared, capsys):
    assert main(["parity", "--dap", "2", str(shared / "golden" / "model_tiny")]) == 2
    assert "torchrun --nproc-per-node 2 -m benchmark parity --dap 2" in capsys.readouterr().err
