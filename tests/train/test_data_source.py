"""Runs on converted shards: required numbers of chains, sample order and resumption."""

import dataclasses
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.sampler import num_recycling_iterations
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.build_run import RunPaths, build_model
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore
from openfold_opt.train.console_observer import ConsoleObserver
from openfold_opt.train.data_source import ShardDataSource, balanced_share
from openfold_opt.train.dataset_split import (
    DataSelectionConfig,
    held_out_chains,
    name_chains,
    select_training,
)
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.trainer import Trainer
from openfold_opt.train.training_interval import TrainingInterval
from tests.support.recording_observer import Recorder
from tests.support.synthetic_samples import tiny_config
from tests.support.synthetic_shards import write_synthetic_shards

SELECTION = DataSelectionConfig(
    validation_rule="release_dates",
    validation_min_date="2021-11-20",
    validation_max_date="2021-12-11",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Return a folder of shards with eight synthetic chains."""
    folder = tmp_path_factory.mktemp("synthetic")
    raw = folder / "raw"
    write_synthetic_shards(raw, folder / "shards")
    return folder / "shards"


def train(config, data_dir, folder):
    recorder = Recorder()
    trainer = Trainer(
        config,
        data=ShardDataSource(data_dir),
        paths=RunPaths(output_dir=folder),
        seed=3,
        observer=recorder,
    )
    return trainer, recorder


def test_wrong_numbers_of_chains_end_the_run_right_after_run_start(data_dir, tmp_path):
    selection = dataclasses.replace(
        SELECTION, expected_train_samples=594_595, expected_eval_samples=180
    )
    trainer, recorder = train(
        dataclasses.replace(tiny_config(), selection=selection), data_dir, tmp_path
    )
    with pytest.raises(
        ValueError, match="6 chains to train on and 1 to evaluate, expected 594,595 and 180"
    ):
        trainer.run()
    assert recorder.names[-2:] == ["run_start", "run_failed"]


@pytest.mark.parametrize(
    ("owner", "method"),
    [(Evaluator, "score"), (TrainingInterval, "_report"), (CheckpointStore, "save")],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_aborted_run_leaves_no_thread_and_no_process(
    data_dir, tmp_path, monkeypatch, owner, method, error
):
    """The run is aborted in an evaluation, in a step, or while a checkpoint is written."""

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(owner, method, fail)
    before = threading.enumerate()
    config = dataclasses.replace(
        tiny_config(max_steps=4), selection=SELECTION, loader=LoaderConfig(num_workers=2)
    )
    trainer, _ = train(config, data_dir, tmp_path)
    # Errors of the writer thread are raised as OSError.
    with pytest.raises(OSError if owner is CheckpointStore else error):
        trainer.run()
    assert threading.enumerate() == before
    assert not multiprocessing.active_children()


def test_a_run_with_the_required_numbers_of_chains_succeeds(data_dir, tmp_path):
    selection = dataclasses.replace(SELECTION, expected_train_samples=6, expected_eval_samples=1)
    trainer, recorder = train(
        dataclasses.replace(tiny_config(max_steps=4), selection=selection), data_dir, tmp_path
    )
    assert trainer.run().steps == 4


def test_held_out_chains_are_named_and_a_listed_one_is_warned_of(data_dir, tmp_path, capsys):
    share = {"validation_rule": "share", "train_max_release_date": "9999-12-31"}
    index = ShardIndex.load(data_dir)
    held_out = sorted(held_out_chains(index, DataSelectionConfig(**share)))
    trained = next(c.chain_id for c in select_training(index, DataSelectionConfig(**share)))
    selection = DataSelectionConfig(train_chain_ids=(trained, held_out[0]), **share)
    config = dataclasses.replace(tiny_config(max_steps=1), selection=selection)
    trainer, recorder = train(config, data_dir, tmp_path)
    trainer.run()
    (warning,) = [line for line in recorder.warnings if "selection.train_chain_ids" in line]
    assert warning.endswith(f"is held out for validation: {held_out[0]}")
    ConsoleObserver().data_ready(train_samples=1, eval_samples=1, held_out=held_out)
    assert capsys.readouterr().out.endswith(f"held out of training: {', '.join(held_out)}\n")


def test_a_message_names_ten_chains_and_counts_the_others():
    assert name_chains(["a", "b"]) == "a, b"
    assert name_chains([str(number) for number in range(12)]).endswith("8, 9 and 2 more")


def test_a_run_with_a_reordering_loader_is_resumed(data_dir, tmp_path):
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


def first_batches(data_dir, config, *, rank, size, seed):
    """Return the samples of the first three micro-batches of a data-parallel rank."""
    axis = AxisGroup(
        name="data", rank=rank, size=size, process_group=object() if size > 1 else None
    )
    data = ShardDataSource(data_dir).open(
        config, dataclasses.replace(ParallelContext.alone(), data=axis), seed=seed
    )
    batches = data.training_batches(
        first_step=1, start=None, device=torch.device("cpu"), report=print
    )
    first = [next(batches) for _ in range(3)]
    data.close()
    return [(batch.chain_ids, batch.sample_seeds, batch.slots.tolist()) for batch in first]


def test_ranks_use_different_samples_of_one_stream(data_dir):
    loader = LoaderConfig(num_workers=0)
    config = dataclasses.replace(tiny_config(), selection=SELECTION, loader=loader)
    single = dataclasses.replace(
        tiny_config(local_batch_size=2), selection=SELECTION, loader=loader
    )
    ranks = [first_batches(data_dir, config, rank=rank, size=2, seed=5) for rank in range(2)]
    both = first_batches(data_dir, single, rank=0, size=1, seed=5)
    for step in range(3):
        (chains_0, seeds_0, slots_0), (chains_1, seeds_1, slots_1) = ranks[0][step], ranks[1][step]
        assert (slots_0, slots_1) == ([0], [1])
        assert seeds_0 != seeds_1
        assert (chains_0 + chains_1, seeds_0 + seeds_1, slots_0 + slots_1) == both[step]


def test_the_samples_depend_on_the_seed(data_dir):
    config = dataclasses.replace(
        tiny_config(), selection=SELECTION, loader=LoaderConfig(num_workers=0)
    )
    assert first_batches(data_dir, config, rank=0, size=1, seed=1) != first_batches(
        data_dir, config, rank=0, size=1, seed=2
    )


def test_weights_and_recycling_depend_on_the_seed():
    config = tiny_config()
    weights = [
        build_model(config, seed=seed, device=torch.device("cpu")).state_dict()
        for seed in (1, 1, 2)
    ]
    random_names = [name for name, tensor in weights[0].items() if tensor.std() > 0]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in random_names)
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in random_names)
    numbers = [
        [num_recycling_iterations(seed, step) for step in range(1, 41)] for seed in (1, 1, 2)
    ]
    assert numbers[0] == numbers[1] != numbers[2]


def test_a_full_disk_keeps_the_previous_checkpoint(data_dir, tmp_path):
    """The file size limit of a process simulates a full disk."""
    script = """
        import resource, sys
        from pathlib import Path
        import torch
        from openfold_opt.train.checkpoint import checkpoint_store
        from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
        from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
        def snapshot(step, size):
            tensors = {"values": torch.zeros(size)}
            return Snapshot(
                step=step, samples_seen=1, lddt_ca=None, facts={}, layout={}, tensors=tensors
            )
        store = checkpoint_store.CheckpointStore(Path(sys.argv[1]), CheckpointConfig())
        store.save(snapshot(1, 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.save(snapshot(2, 1_000_000))
        except OSError as error:
            print(error)
        names = sorted(path.name for path in Path(sys.argv[1]).iterdir())
        print([record.step for record in store.records()], names)
    """
    root = Path(__file__).parents[2]
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        "cannot write checkpoint" in finished.stdout
        and "bytes are free" in finished.stdout
        and "which resumes" in finished.stdout
    )
    assert "[1] ['step_00000001']" in finished.stdout


def test_a_run_resumed_with_other_micro_batches_uses_the_same_samples(data_dir, tmp_path):
    loader = LoaderConfig(num_workers=0)

    def config(max_steps, **sizes):
        return dataclasses.replace(
            tiny_config(max_steps=max_steps, **sizes), selection=SELECTION, loader=loader
        )

    train(config(4, local_batch_size=1, accumulation=2), data_dir, tmp_path / "resumed")[0].run()
    trainer, resumed = train(config(8, local_batch_size=2), data_dir, tmp_path / "resumed")
    assert trainer.run().resumed_from_step == 4
    trainer, whole = train(config(8, local_batch_size=2), data_dir, tmp_path / "whole")
    trainer.run()
    assert [report.step for report in resumed.steps] == [5, 6, 7, 8]
    for found, expected in zip(resumed.steps, whole.steps[4:], strict=True):
        assert found.loss == pytest.approx(expected.loss, abs=1e-5)


def test_evaluation_chains_are_balanced_by_work():
    lengths = {"a": 10, "b": 9, "c": 8, "d": 3, "e": 2}
    axes = [
        AxisGroup(name="training", rank=rank, size=2, process_group=object()) for rank in range(2)
    ]
    # The squares are 100 and 81 + 64; then 100 + 9 + 4 and 145.
    assert [balanced_share(lengths, axis) for axis in axes] == [("a", "d", "e"), ("b", "c")]
    assert balanced_share(lengths, AxisGroup.single("training")) == ("a", "b", "c", "d", "e")
    assert [balanced_share({}, axis) for axis in axes] == [(), ()]
