"""Every configuration can be sourced, and its numbers fit its preset."""

import os
import pathlib
import re
import subprocess

import pytest

from benchmark.mlperf.rules import preset_division
from benchmark.presets import build_preset, preset_names
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.phases import find_phase

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "slurm/configs").glob("*.sh"))
VARIABLES = (
    "SYSTEM NODES RANKS_PER_NODE PRESET WALLTIME INSTANCES CPUS_PER_RANK GPUS_PER_NODE GPU_NAME "
    "GPU_MEMORY_GIB MIN_ALL_REDUCE_GB_S BIND DIVISION PREDICTED_RUN_SECONDS"
).split()
# Nodes, training ranks of an instance, dap, evaluation ranks, global batch.
EXPECTED = {
    "a100_1x8": (1, 8, 1, 0, 128),
    "a100_224x4_dap4": (224, 872, 4, 24, 218),
    "cpu_2x2": (2, 4, 2, 0, 2),
    "cpu_throughput": (2, 2, 2, 0, 2),
    "h100_128x8_dap8": (132, 1024, 8, 32, 128),
    "h100_132x8_initial": (132, 1024, 8, 32, 128),
    "h100_16x8_dap1": (16, 128, 1, 0, 128),
    "h100_1x8": (1, 8, 1, 0, 128),
    "h100_260x8_dap8": (260, 2048, 8, 32, 256),
    "h100_260x8_initial": (260, 2048, 8, 32, 256),
    "h100_8x8": (8, 64, 1, 0, 128),
    "h100_throughput_256x8": (256, 128, 1, 0, 128),
    "h200_1x8": (1, 8, 1, 0, 128),
}

# Configurations of the full training -> the phase of their preset that EXPECTED describes.
PHASES = {"h100_132x8_initial": "first", "h100_260x8_initial": "second"}


def sourced(*names: str) -> dict[str, str]:
    """Return the environment after sourcing configurations in this order."""
    script = "; ".join(f". slurm/configs/{name}.sh" for name in names) + "; env"
    environment = {"PATH": os.environ["PATH"]}
    shown = subprocess.run(
        ["bash", "-euc", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not shown.stderr
    return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)


@pytest.fixture
def fake_sbatch(tmp_path):
    """Return a PATH with an sbatch that prints its arguments."""
    script = tmp_path / "sbatch"
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_every_configuration_is_expected():
    assert CONFIGS == sorted(EXPECTED)


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_sets_everything(name):
    found = sourced(name)
    assert found["SYSTEM"] == name
    assert all(variable in found for variable in VARIABLES)
    assert found["PRESET"] in preset_names()
    assert re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", found["WALLTIME"])
    assert float(found["MIN_ALL_REDUCE_GB_S"]) > 0
    if int(found["GPUS_PER_NODE"]):
        assert (
            found["GPU_NAME"]
            and int(found["GPU_MEMORY_GIB"])
            and found["RANKS_PER_NODE"] == found["GPUS_PER_NODE"]
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_fit_the_preset(name):
    found = sourced(name)
    nodes, instances = int(found["NODES"]), int(found["INSTANCES"])
    assert nodes % instances == 0
    num_ranks = nodes // instances * int(found["RANKS_PER_NODE"])
    preset = build_preset(found["PRESET"])
    config = find_phase(preset, PHASES.get(name, "1")).config
    if name in PHASES:
        config = check_global_batch(config, num_ranks)
    training = count_training_ranks(config.parallel, num_ranks)
    dap = config.parallel.dap_size
    batch = training // dap * config.local_batch_size * config.accumulation
    assert batch == config.global_batch_size
    assert (nodes, training, dap, config.parallel.num_evaluation_ranks, batch) == EXPECTED[name]
    # The ranks of a sample are on one node, because links between nodes are slower.
    assert int(found["RANKS_PER_NODE"]) % dap == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_presets_of_gpu_systems_are_closed(name):
    found, preset = sourced(name), build_preset(sourced(name)["PRESET"])
    division, device = ("open", "auto") if name.startswith("cpu") else ("closed", "cuda")
    division = "open" if name in PHASES else division
    assert (preset_division(preset), found["DIVISION"], preset.device) == (
        division,
        division,
        device,
    )


def test_a_configuration_replaces_all_values_of_another():
    for variable in VARIABLES:
        assert sourced("h100_throughput_256x8", "cpu_2x2")[variable] == sourced("cpu_2x2")[variable]


def test_a_shell_with_a_cdpath_finds_the_same_checkout(tmp_path):
    (tmp_path / "slurm" / "configs").mkdir(parents=True)
    for path in (f".:{tmp_path}", str(tmp_path)):
        script = f'CDPATH={path}; . slurm/configs/cpu_2x2.sh; echo "$OPENFOLD_ROOT"'
        shown = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert shown.stdout == f"{ROOT}\n", shown.stderr


def test_sbatch_requests_the_nodes_and_the_command_line_takes_precedence(fake_sbatch):
    script = (
        ". slurm/configs/h100_260x8_dap8.sh; sbatch --partition=gpu --time=1 slurm/run.sub; "
        "sbatch other.sh; bash -c 'sbatch slurm/run.sub'"
    )
    environment = {"PATH": fake_sbatch}
    shown = subprocess.run(
        ["bash", "-euc", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    options = (
        "--job-name=openfold-h100_260x8_dap8 --nodes=260 --ntasks-per-node=8 --time=4:00:00 "
        "--gpus-per-node=8 --exclusive"
    )
    assert shown.stdout.splitlines() == [
        f"{options} --partition=gpu --time=1 slurm/run.sub",
        "other.sh",
        f"{options} slurm/run.sub",
    ]


def test_job_without_a_configuration_names_one_to_source():
    shown = subprocess.run(
        ["bash", "slurm/run.sub"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 2
    assert "source slurm/configs/cpu_2x2.sh" in shown.stderr


def test_readme_has_every_variable_and_configuration():
    text = (ROOT / "slurm/README.md").read_text(encoding="utf-8")
    script = (ROOT / "slurm/run.sub").read_text(encoding="utf-8")
    of_user = re.findall(r"^([A-Z_]+)=\"\$\{\1:-", script, re.MULTILINE)
    assert {"NEXP", "LOGDIR", "DATADIR"} <= set(of_user)
    for name in [*VARIABLES, *of_user]:
        assert f"`{name}`" in text, name
    for name in CONFIGS:
        assert f"`{name}`" in text, name
