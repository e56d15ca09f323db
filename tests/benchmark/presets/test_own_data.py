"""From the example entries to a model and a fine-tuned one, by the commands of docs/own_data.md."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import torch

from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.dataset_split import DataSelectionConfig, select_training, select_validation

ROOT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples/own_data"
FAST = (
    "--seed",
    "1",
    "--set",
    "max_steps=2",
    "--set",
    "data.crop_size=24",
    "--set",
    "loader.num_workers=0",
)


def call(*arguments):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The examples, converted from a folder with alignments in OpenFold's layout."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(EXAMPLES, folder / "mine")
    inputs = [
        "--pdb-mmcif",
        folder / "mine/entries",
        "--open-protein-set",
        folder / "mine/alignments",
    ]
    flags = ["--own-data", "--missing-alignments", "query"]
    done = call("data_prep", "convert", *flags, *inputs, "--out", folder / "shards")
    assert done.returncode == 0, done.stderr
    return folder / "shards"


def train(shards, output, *flags):
    # out of steps: exit code 1
    done = call("benchmark", "run", "--data-dir", shards, "--output-dir", output, *FAST, *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_the_examples_are_complete_and_small(shards):
    chains = {chain.chain_id: chain for chain in ShardIndex.load(shards).chains}
    assert set(chains) == {
        "1l2y_A",
        "5hkn_A",
        "5hkn_B",
        "5y2e_A",
        "2hhb_A",
        "2hhb_B",
        "2hhb_C",
        "2hhb_D",
    }
    assert chains["2hhb_A"].num_alignments == chains["2hhb_C"].num_alignments > 3000
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 5e6


def test_every_example_is_named_in_the_notice():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for path in EXAMPLES.rglob("*.gz"):
        assert path.name.split(".")[0] in notice, path
    assert "CC BY 4.0" in notice and "CC0" in notice


def test_from_files_to_a_model_and_a_fine_tuned_one(shards, tmp_path):
    first, second, weights = tmp_path / "first", tmp_path / "second", tmp_path / "weights.pt"
    printed = train(shards, first, "--preset", "own_data")
    selection = DataSelectionConfig(
        train_max_release_date="9999-12-31", validation_rule="share", exclude_validation=True
    )
    index = ShardIndex.load(shards)
    trained, held_out = select_training(index, selection), select_validation(index, selection)
    assert len(trained) + len(held_out) == 8
    assert f"data: {len(trained)} chains to train on, {len(held_out)} to evaluate" in printed
    record = json.loads((first / "config.json").read_text())
    assert record["division"] == "open" and record["settings"] == list(FAST[3::2])
    assert record["config"]["data"]["crop_size"] == 24
    assert record["config"]["data"]["max_msa_clusters"] in (1, 16)
    preset = tmp_path / "mine.py"
    preset.write_text("from benchmark.presets.own_data import build, fit_to_data\n")
    printed = train(shards, second, "--preset", preset, "--init-checkpoint", first)
    assert f"the averaged ones of {first}/checkpoints/step_00000002 (step 2" in printed
    assert json.loads((second / "config.json").read_text())["preset"] == str(preset)
    done = call("benchmark", "export", second, weights)
    assert done.returncode == 0, done.stderr
    content = torch.load(weights, weights_only=True)
    assert content["iteration"] == 2 and "weight_average_state_dict" in content
