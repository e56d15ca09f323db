"""The parity command: golden directories, and its errors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.parity.comparison import Comparison, relative_error
from benchmark.parity.golden_directory import (
    GoldenDirectory,
    GoldenDirectoryError,
    load_golden_directory,
)
from benchmark.parity.golden_losses import loss_config
from benchmark.parity.report import format_table
from benchmark.parity.trajectory import compare_steps
from openfold_opt.kernels import select
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.published_weights.reference_config import reference_model_config
from openfold_opt.parallel.context import ParallelContext
from tests.support.gloo_ranks import torchrun

ROOT = Path(__file__).resolve().parents[3]


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
        for section in ("outputs", "losses", "gradients", "trajectory", "update", "resumed"):
            assert f"\n{section}: " in text
        assert "resumed update: 2 of 2 within tolerance" in text
    if name == "model_full":
        assert "93,229,082 parameters in 5,044 tensors" in text
        assert "skipped, because the directory lacks: outputs_no_recycling.npz, grads.npz" in text


@pytest.mark.compiler
def test_the_kernels_for_a_cpu_pass_with_the_trajectory(shared, capsys):
    assert main(["parity", "--kernels", "cpu", str(shared / "golden" / "model_tiny")]) == 0
    assert "trajectory: 88 of 88 within tolerance" in capsys.readouterr().out


def test_the_steps_after_the_stored_state_are_compared_alone(shared, capsys):
    assert main(["parity", "--only-resumed", str(shared / "golden" / "model_tiny")]) == 0
    text = capsys.readouterr().out
    assert "resumed: 44 of 44 within tolerance" in text
    assert "resumed update: 1 of 1 within tolerance" in text and "PASS (45 comparisons" in text


def test_a_directory_without_a_stored_state_has_no_steps_after_it(tiny, capsys):
    (tiny / "resumable.pt").unlink(missing_ok=True)
    assert main(["parity", "--only-resumed", str(tiny)]) != 0
    assert "resumable.pt is not a resumable checkpoint" in capsys.readouterr().err


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


def changed_update(golden: GoldenDirectory, name: str, factor: float) -> dict[str, torch.Tensor]:
    """The tensors of a file, with the update that led from the stored state to them scaled."""
    state = torch.load(golden.path / "resumable.pt", weights_only=True)["alphafold_state_dict"]
    tensors = golden.arrays(name)
    return {key: state[key] + factor * (value - state[key]) for key, value in tensors.items()}


def test_errors_close_to_a_stored_state_fail(shared, monkeypatch):
    golden = load_golden_directory(shared / "golden" / "model_tiny")
    trajectory = golden.results["trajectory"]
    # 2e-3 is beyond the limits close to a stored state, and within those far from one
    trajectory[1]["losses"]["fape"] *= 1.002
    trajectory[1]["losses"]["tm"] *= 1.002
    trajectory[5]["loss"] *= 1.002
    names = ("params_after.npz", "swa_after.npz")
    files = {name: changed_update(golden, name, 1.002) for name in names}
    monkeypatch.setattr(GoldenDirectory, "arrays", lambda self, name: files[name])
    context = ParallelContext.alone()
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig(), "cpu"), dap=context.dap)
    comparisons = compare_steps(golden, loss_config(golden.config), plan, context)
    failed = {(row.section, row.name) for row in comparisons if not row.is_within}
    assert failed == {
        ("trajectory", "step 2 fape"),
        ("resumed", "step 6 loss"),
        ("resumed update", "params_after.npz"),
        ("resumed update", "swa_after.npz"),
    }


def test_a_stored_state_from_another_trajectory_is_an_error(shared):
    golden = load_golden_directory(shared / "golden" / "model_tiny")
    del golden.results["trajectory"][:4]
    context = ParallelContext.alone()
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig(), "cpu"), dap=context.dap)
    expected = r"after step 4, expected one of .*\[5, 6, 7, 8\]"
    with pytest.raises(GoldenDirectoryError, match=expected):
        compare_steps(golden, loss_config(golden.config), plan, context)


def test_padding_is_not_compared(tiny, capsys):
    arrays = dict(np.load(tiny / "outputs.npz"))
    arrays["single"][0, 17:] = 1e6
    arrays["pair"][0, :, 17:] = 1e6
    arrays["msa"][0, :, 17:] = np.nan
    np.savez(tiny / "outputs.npz", **arrays)
    assert main(["parity", str(tiny)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["config.json", "weights.npz", "batch.npz", "results.json", "grads.npz"]
)
def test_a_garbled_file_is_an_error_that_names_it(tiny, capsys, name):
    (tiny / name).write_bytes(b"garbage")
    assert main(["parity", str(tiny)]) == 2
    assert name in capsys.readouterr().err


def assert_one_message(capsys, text: str) -> None:
    shown = capsys.readouterr().err
    assert text in shown and "--kernels reference" in shown
    assert shown.count("\n") == 1 and "Traceback" not in shown


def test_cpu_kernels_without_a_compiler_are_an_error(shared, capsys, monkeypatch):
    monkeypatch.setattr(select, "cpu_unsupported_reason", lambda: "there is no C++ compiler")
    assert main(["parity", "--kernels", "cpu", str(shared / "golden" / "model_tiny")]) == 2
    assert_one_message(capsys, "there is no C++ compiler")


def test_triton_kernels_without_a_device_are_an_error(shared):
    command = [sys.executable, "-m", "benchmark", "parity", "--kernels", "triton"]
    shown = subprocess.run(
        [*command, str(shared / "golden" / "model_tiny")],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 2, shown.stderr
    assert shown.stderr.startswith("benchmark parity: --kernels triton cannot run here")
    assert "Traceback" not in shown.stderr


def test_the_number_of_threads_is_an_option(tmp_path, capsys):
    missing = str(tmp_path / "none")
    assert main(["parity", "--threads", "2", missing]) == 2
    assert torch.get_num_threads() == 2
    assert main(["parity", "--threads", "0", missing]) == 2
    assert "--threads 0: expected 1 or more" in capsys.readouterr().err


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
    config = reference_model_config(golden)
    assert config.auxiliary_heads.has_tm_score and config.structure_module.num_v_points == 5
    del golden["structure_module_config"]["eps"], golden["loss_config"]["tm_loss_config"]
    with pytest.raises(ValueError, match="config.json has no field 'eps'"):
        reference_model_config(golden)
    with pytest.raises(ValueError, match="config.json has no field 'tm_loss_config'"):
        loss_config(golden)


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])) == pytest.approx(
        4.0 / 3.0
    )
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0.0
    assert relative_error(float("nan"), 1.0) == float("inf")
    assert relative_error(torch.zeros(2), torch.zeros(3)) == float("inf")


def test_a_long_section_shows_its_largest_errors_and_every_failure():
    rows = [
        Comparison(section="s", name=f"row {i}", error=i * 1e-6, tolerance=80e-6)
        for i in range(100)
    ]
    text = format_table(rows)
    assert "s: 81 of 100 within tolerance" in text
    assert text.count("EXCEEDS") == 19
    assert "row 5 " not in text


def test_the_default_model_is_that_of_the_benchmark():
    config = ModelConfig()
    assert (config.c_m, config.c_z, config.c_s, config.evoformer_stack.num_blocks) == (
        256,
        128,
        384,
        48,
    )


def test_a_dap_group_passes_under_torchrun(shared):
    command = [*torchrun(2), "-m", "benchmark", "parity"]
    shown = subprocess.run(
        [*command, "--dap", "2", str(shared / "golden" / "model_tiny")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert shown.returncode == 0, shown.stdout[-3000:] + shown.stderr[-1000:]
    assert shown.stdout.count("sharded over 2 ranks") == 1, "only the first rank prints"
    for section in (
        "outputs: 23 of 23",
        "gradients: 677 of 677",
        "resumed: 44 of 44",
        "resumed update: 2 of 2",
    ):
        assert section in shown.stdout


def test_another_number_of_ranks_than_dap_says_is_refused(shared, capsys):
    assert main(["parity", "--dap", "2", str(shared / "golden" / "model_tiny")]) == 2
    assert "torchrun --nproc-per-node 2 -m benchmark parity --dap 2" in capsys.readouterr().err
