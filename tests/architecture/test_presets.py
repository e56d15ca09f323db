"""Every preset builds; the closed ones differ from the reference only where the rules allow."""

import dataclasses
import pathlib
import subprocess

import pytest

from benchmark.mlperf.rules import compare, preset_division
from benchmark.presets import build_preset, preset_names
from openfold_opt.train.config import RunConfig, config_fields

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAY = {
    "demo_2x2",
    "demo_async_eval",
    "demo_ci_2x2",
    "demo_dap2",
    "demo",
    "demo_ci",
    "demo_full",
    "demo_one_phase",
    "middle",
    "own_data",
    "real_smoke",
}
CLOSED = {
    "mlperf_reference",
    "mlperf_fast",
    "mlperf_1x8",
    "mlperf_8x8_dap1",
    "mlperf_16x8_dap1",
    "mlperf_128x8_dap8",
    "mlperf_256x8_dap8",
    "mlperf_a100_224x4_dap4",
}
FULL_TRAINING = {
    "initial_training",
    "initial_training_8gpu",
    "initial_training_64gpu",
    "initial_training_1056",
    "initial_training_2080",
    "finetuning",
    "finetuning_ptm",
}
"""Open division, on GPUs."""
PRESETS = sorted(PLAY | CLOSED | FULL_TRAINING)
"""Those of the project. Files that somebody adds to the folder are not judged here."""


def test_presets_that_the_documents_promise_exist():
    assert set(PRESETS) <= set(preset_names())


def test_every_preset_of_the_commit_is_judged_here():
    command = ["git", "ls-files", "benchmark/presets"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip("no git history")
    names = {pathlib.PurePath(line).stem for line in listed.stdout.splitlines()}
    found = {name for name in names if not name.startswith("_")}
    assert found == set(PRESETS), (
        "add a new preset to CLOSED, PLAY or FULL_TRAINING of this test, and to git"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds_and_every_field_is_marked(name):
    config = build_preset(name)
    assert isinstance(config, RunConfig)
    assert len(list(config_fields(config))) > 100


@pytest.mark.parametrize("name", PRESETS)
def test_preset_states_its_global_batch(name):
    assert build_preset(name).global_batch_size is not None


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_frozen_all_the_way_down(name):
    def check(config):
        assert dataclasses.is_dataclass(config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(config)[0].name, None)
        for item in dataclasses.fields(config):
            value = getattr(config, item.name)
            if dataclasses.is_dataclass(value):
                check(value)
            else:
                hash(value)

    check(build_preset(name))


@pytest.mark.parametrize("name", PRESETS)
def test_division_is_that_of_the_differences(name):
    config = build_preset(name)
    mathematical = [
        d for d in compare(config, build_preset("mlperf_reference")) if d.category == "mathematical"
    ]
    assert preset_division(config) == ("open" if mathematical else "closed")
    assert (name in CLOSED) != bool(mathematical)
    if not mathematical:
        assert config.init_checkpoint_sha256, "a closed preset starts from the published checkpoint"


@pytest.mark.parametrize("name", sorted(set(PRESETS) - PLAY))
def test_only_presets_for_play_choose_a_device_at_launch(name):
    assert build_preset(name).device != "auto"
