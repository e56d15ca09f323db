"""A planned Slurm configuration sets what those of slurm/configs set, and fits its preset."""

import json
import os
import pathlib
import re
import subprocess

import pytest

from benchmark.__main__ import main
from benchmark.plan.slurm_config import plan_slurm, smallest_gpus
from benchmark.plan.systems import FOLDER, load_system
from benchmark.plan.time_limit import read_time_limit, time_limit
from benchmark.presets import build_preset
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.phases import find_phase

ROOT = pathlib.Path(__file__).resolve().parents[3]


def sourced(path, then="env"):
    """Return the environment after sourcing a configuration, as a user does."""
    shown = subprocess.run(
        ["bash", "-euc", f". {path}; {then}"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not shown.stderr
    return shown.stdout


def variables(path):
    return dict(line.split("=", 1) for line in sourced(path).splitlines() if "=" in line)


def plan(path, *options, preset, system, minutes="10"):
    arguments = ["--preset", preset, "--system", system, "--run-minutes", minutes]
    return main(["plan", "slurm", *arguments, "--out", str(path), *options])


# Preset, system, options -> nodes, training ranks, dap, evaluation ranks, batch, division.
CASES = {
    ("mlperf_256x8_dap8", "h100_sxm"): (260, 2048, 8, 32, 256, "closed"),
    ("mlperf_128x8_dap8", "h200_sxm"): (132, 1024, 8, 32, 128, "closed"),
    ("mlperf_16x8_dap1", "h100_sxm", "--gpus", "64"): (8, 64, 1, 0, 128, "closed"),
    ("mlperf_a100_224x4_dap4", "perlmutter"): (224, 872, 4, 24, 218, "closed"),
    ("initial_training_2080", "h100_sxm", "--phase", "second"): (260, 2048, 8, 32, 256, "open"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_planned_configuration_fits_its_preset(case, tmp_path):
    preset, system, *options = case
    path = tmp_path / "my_system.sh"
    assert plan(path, *options, preset=preset, system=system) == 0
    found = variables(path)
    num_ranks = int(found["NODES"]) * int(found["RANKS_PER_NODE"])
    phase = options[1] if "--phase" in options else "1"
    config = check_global_batch(find_phase(build_preset(found["PRESET"]), phase).config, num_ranks)
    training = count_training_ranks(config.parallel, num_ranks)
    dap = config.parallel.dap_size
    batch = training // dap * config.local_batch_size * config.accumulation
    evaluation = config.parallel.num_evaluation_ranks
    division = found["DIVISION"]
    assert (int(found["NODES"]), training, dap, evaluation, batch, division) == CASES[case]
    assert found["SYSTEM"] == "my_system" and found["RANKS_PER_NODE"] == found["GPUS_PER_NODE"]
    assert re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", found["WALLTIME"])
    assert found["GPU_NAME"] in ("H100", "H200", "A100") and int(found["GPU_MEMORY_GIB"]) > 30
    assert float(found["MIN_ALL_REDUCE_GB_S"]) > 0 and found["PREDICTED_RUN_SECONDS"] == "600"


def test_sbatch_requests_the_planned_nodes(tmp_path):
    path = tmp_path / "mine.sh"
    assert plan(path, preset="mlperf_16x8_dap1", system="h100_sxm") == 0
    assert sourced(path, then="openfold_request").split() == [
        "--job-name=openfold-mine",
        "--nodes=16",
        "--ntasks-per-node=8",
        "--time=2:45:00",
        "--gpus-per-node=8",
        "--exclusive",
    ]


def test_a_file_of_the_checkout_finds_its_own_settings():
    config = plan_slurm(
        build_preset("mlperf_1x8"),
        preset="mlperf_1x8",
        name="mine",
        system=load_system("h100_sxm"),
        num_gpus=8,
        run_seconds=7200,
        num_runs=1,
    )
    ours = config.text(ROOT / "slurm" / "configs" / "mine.sh")
    assert str(ROOT) not in ours and "/../settings.sh" in ours
    assert "batch 128, 16 micro-batches of a rank; the same GPUs evaluate." in ours
    assert "predicted to take 120.0 minutes; the limit is for one run." in ours


def test_a_configuration_without_a_plan_has_no_prediction(tmp_path):
    path = tmp_path / "mine.sh"
    assert plan(path, preset="mlperf_16x8_dap1", system="h100_sxm") == 0
    script = f"{path}; . slurm/configs/h100_8x8.sh"
    assert variables(script)["PREDICTED_RUN_SECONDS"] == ""


def test_a_preset_has_the_gpus_of_its_accumulation():
    assert smallest_gpus(build_preset("mlperf_256x8_dap8")) == 2080
    assert smallest_gpus(build_preset("mlperf_1x8")) == 8
    assert smallest_gpus(build_preset("mlperf_16x8_dap1")) == 128


def test_the_time_of_a_run_is_that_of_plan_train(tmp_path, counts_file):
    arguments = ["--preset", "mlperf_128x8_dap8", "--system", "h100_sxm"]
    counts = ["--counts", str(counts_file)]
    train = tmp_path / "train.json"
    gpus = ["--gpus", "1056", "--json", str(train)]
    assert main(["plan", "train", *arguments, *counts, *gpus]) == 0
    expected = json.loads(train.read_text())["plans"][0]["target"]["seconds"]
    path = tmp_path / "mine.sh"
    assert main(["plan", "slurm", *arguments, *counts, "--out", str(path)]) == 0
    found = variables(path)
    assert float(found["PREDICTED_RUN_SECONDS"]) == pytest.approx(expected, abs=1)
    assert read_time_limit(found["WALLTIME"]) == time_limit(expected, 10)


def test_a_preset_without_a_known_target_needs_a_time(tmp_path, counts_file, capsys):
    arguments = ["--preset", "mlperf_1x8", "--system", "h100_sxm", "--out", "mine.sh"]
    config = build_preset("mlperf_1x8")
    preset = tmp_path / "other.py"
    preset.write_text(
        "import dataclasses\n\nfrom benchmark.presets import mlperf_1x8\n\n\n"
        "def build():\n"
        "    return dataclasses.replace(mlperf_1x8.build(), init_checkpoint_sha256=None)\n"
    )
    assert config.init_checkpoint_sha256 is not None
    arguments[1] = str(preset)
    assert main(["plan", "slurm", *arguments, "--counts", str(counts_file)]) == 2
    assert "give --run-minutes" in capsys.readouterr().err


def test_samples_that_span_nodes_are_a_warning(tmp_path, capsys):
    options = {"preset": "mlperf_128x8_dap8", "system": "perlmutter"}
    assert plan(tmp_path / "mine.sh", **options) == 0
    assert "warning: the 8 ranks of a sample are not on one node of 4" in capsys.readouterr().out


def test_the_job_of_a_phase_makes_one_run(tmp_path):
    for options, preset, limit in (
        ([], "mlperf_16x8_dap1", time_limit(600, 10)),
        (["--phase", "first"], "initial_training", time_limit(600, 1)),
    ):
        path = tmp_path / "mine.sh"
        assert plan(path, *options, preset=preset, system="h100_sxm") == 0
        assert read_time_limit(variables(path)["WALLTIME"]) == limit


def test_a_name_with_a_line_end_is_refused(tmp_path, capsys):
    system = json.loads((FOLDER / "h100_sxm.json").read_text())
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(system | {"name": "mine\ntouch made"}))
    assert plan(tmp_path / "mine.sh", preset="mlperf_16x8_dap1", system=str(file)) == 2
    assert "expected a text of one line" in capsys.readouterr().err
    assert not (tmp_path / "mine.sh").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "100"], "100 GPUs are no whole nodes of h100_sxm, which have 8 each"),
        (["--gpus", "96"], "global_batch_size=128 is not a multiple of 96"),
        (["--system", "nowhere"], "unknown system 'nowhere'"),
        (["--preset", "initial_training_2080"], "give --phase, one of first, second"),
        (["--out", "config.txt"], "expected a name that ends with .sh"),
        (["--out", "absent/config.sh"], "create it first"),
        (["--out", "a b.sh"], "expected letters, digits, _ and -"),
    ],
)
def test_bad_input_is_named(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan("mine.sh", *options, preset="mlperf_16x8_dap1", system="h100_sxm") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_more_gpus_than_the_system_has_are_refused(tmp_path, capsys):
    system = json.loads((FOLDER / "h100_sxm.json").read_text()) | {"name": "small", "num_gpus": 64}
    (tmp_path / "small.json").write_text(json.dumps(system))
    options = {"preset": "mlperf_16x8_dap1", "system": str(tmp_path / "small.json")}
    assert plan(tmp_path / "mine.sh", **options) == 2
    assert "128 GPUs are more than the 64 of small" in capsys.readouterr().err
