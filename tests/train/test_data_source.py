"""Runs on converted shards: the demanded numbers of chains, and a loader that reorders, through a checkpoint."""

import dataclasses

import pytest

from data_prep.__main__ import main as data_prep
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.loop import Trainer
from openfold_opt.train.selection import DataSelectionConfig
from openfold_opt.train.setup import RunPaths
from tests.train.recorder import Recorder
from tests.train.synthetic import tiny_config

SELECTION = DataSelectionConfig(
    validation_rule="release_dates", validation_min_date="2021-11-20", validation_max_date="2021-12-11"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Eight synthetic chains."""
    folder = tmp_path_factory.mktemp("synthetic")
    raw = folder / "raw"
    assert data_prep(["synthesize", "--out", str(raw), "--chains", "8"]) == 0
    inputs = ["--pdb-mmcif", str(raw / "pdb_mmcif"), "--open-protein-set", str(raw / "open_protein_set")]
    assert data_prep(["convert", *inputs, "--out", str(folder / "shards")]) == 0
    return folder / "shards"


def train(config, data_dir, folder):
    recorder = Recorder()
    trainer = Trainer(
        config, data=ShardDataSource(data_dir, config), paths=RunPaths(output_dir=folder), seed=3, observer=recorder
    )
    return trainer, recorder


def test_wrong_numbers_of_chains_end_the_run_right_after_run_start(data_dir, tmp_path):
    demand = dataclasses.replace(SELECTION, expected_train_samples=594_595, expected_eval_samples=180)
    trainer, recorder = train(dataclasses.replace(tiny_config(), selection=demand), data_dir, tmp_path)
    with pytest.raises(ValueError, match="6 chains to train on and 1 to evaluate, expected 594,595 and 180"):
        trainer.run()
    assert recorder.names[-2:] == ["run_start", "run_failed"]


def test_right_numbers_of_chains(data_dir, tmp_path):
    demand = dataclasses.replace(SELECTION, expected_train_samples=6, expected_eval_samples=1)
    trainer, recorder = train(dataclasses.replace(tiny_config(max_steps=4), selection=demand), data_dir, tmp_path)
    assert trainer.run().steps == 4


def test_a_reordered_run_is_resumed_where_each_rank_stood(data_dir, tmp_path):
    loader = LoaderConfig(num_workers=2, window=8, prefetch_per_worker=4, start_method="fork")
    config = dataclasses.replace(tiny_config(max_steps=4), selection=SELECTION, loader=loader)
    trainer, _ = train(config, data_dir, tmp_path)
    assert trainer.run().steps == 4
    config = dataclasses.replace(config, max_steps=8)
    trainer, recorder = train(config, data_dir, tmp_path)
    summary = trainer.run()
    assert (summary.resumed_from_step, summary.steps) == (4, 8)
    assert [report.step for report in recorder.steps] == [5, 6, 7, 8]
    assert all(0 <= report.reorder_distance <= 8 for report in recorder.steps)
