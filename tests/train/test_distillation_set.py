"""Runs with a distillation set: mixtures are exact on resume, and leaks are refused."""

import dataclasses

import numpy as np
import pytest
import torch

from data_prep.__main__ import main
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.loader import TrainingTask
from openfold_opt.loader.sample import make_training_sample
from openfold_opt.loader.sampler import DISTILLATION_SET, SampleStream, TrainingSampler
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.reader import ShardReader
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.dataset_split import DataSelectionConfig
from openfold_opt.train.distillation_set import data_checksum, open_distillation
from openfold_opt.train.trainer import Trainer
from tests.support.predicted_data import predicted, write_predictions
from tests.support.recording_observer import Recorder
from tests.support.synthetic_samples import tiny_config
from tests.support.synthetic_shards import write_synthetic_shards

SELECTION = DataSelectionConfig(
    validation_rule="release_dates",
    validation_min_date="2021-11-20",
    validation_max_date="2021-12-11",
    distillation_probability=0.75,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of eight synthetic chains (validation: one), and a distillation set of two others."""
    folder = tmp_path_factory.mktemp("mixture")
    write_synthetic_shards(folder / "raw", folder / "shards")
    write_synthetic_shards(folder / "more" / "raw", folder / "more" / "shards", num_chains=12)
    reader = ShardReader(folder / "more" / "shards")
    names = [chain.chain_id for chain in reader.index.chains][8:10]
    distill(folder, "distilled", [predicted(reader, name) for name in names])
    return folder


def distill(folder, name, structures, *options):
    """Make a distillation set, and return its folder."""
    predictions = write_predictions(folder / f"{name}_predictions", structures)
    inputs = ["--predictions", str(predictions), "--missing-alignments", "query"]
    inputs += ["--alignments", str(folder / "more" / "raw" / "open_protein_set")]
    filters = ["--min-length", "0", "--max-length", "0", "--min-msa-rows", "0"]
    out = folder / name
    assert main(["distill", *inputs, *filters, "--out", str(out), *map(str, options)]) == 0
    return out


def config(**changes):
    values = {"selection": SELECTION, "loader": LoaderConfig(num_workers=0)}
    return dataclasses.replace(tiny_config(), **{**values, **changes})


def open_data(folder, run_config, distillation="distilled", *, rank=0, size=1):
    axis = AxisGroup(
        name="data", rank=rank, size=size, process_group=object() if size > 1 else None
    )
    context = dataclasses.replace(ParallelContext.alone(), data=axis)
    distillation_dir = None if distillation is None else folder / distillation
    return ShardDataSource(folder / "shards", distillation_dir).open(run_config, context, seed=5)


def samples(data, *, first_step, num_micro):
    """Return (data set, chain, seed) of samples by step and slot."""
    batches = data.training_batches(
        first_step=first_step, start=None, device=torch.device("cpu"), report=print
    )
    found = {}
    for _ in range(num_micro):
        batch = next(batches)
        rows = zip(batch.data_sets, batch.chain_ids, batch.sample_seeds, strict=True)
        found |= {(batch.step, slot): row for slot, row in zip(batch.slots.tolist(), rows)}
        resolution = batch.features["resolution"].tolist()
        for data_set, value in zip(batch.data_sets, resolution):
            # Losses of the confidence heads leave out samples without a resolution.
            assert np.isnan(value) == (data_set == DISTILLATION_SET)
    data.close()
    return found


def test_a_resumed_run_on_other_ranks_has_the_samples_of_an_uninterrupted_one(folder):
    whole = samples(open_data(folder, config(local_batch_size=2)), first_step=1, num_micro=8)
    found = samples(open_data(folder, config(accumulation=2)), first_step=1, num_micro=2 * 3)
    for rank in range(2):
        data = open_data(folder, config(), rank=rank, size=2)
        found |= samples(data, first_step=4, num_micro=5)
    assert found == whole
    assert {data_set for data_set, _, _ in whole.values()} == {0, 1}
    distilled = {chain.chain_id for chain in ShardIndex.load(folder / "distilled").chains}
    assert all((chain in distilled) == bool(number) for number, chain, _ in whole.values())


def test_a_run_resumed_with_a_mixture_computes_the_same_losses(folder, tmp_path):
    def train(max_steps, out):
        recorder = Recorder()
        trainer = Trainer(
            config(max_steps=max_steps),
            data=ShardDataSource(folder / "shards", folder / "distilled"),
            paths=RunPaths(output_dir=tmp_path / out),
            seed=3,
            observer=recorder,
        )
        trainer.run()
        return [report.loss for report in recorder.steps]

    assert train(4, "resumed") + train(8, "resumed") == train(8, "whole")


def test_the_identity_of_a_run_has_both_data_sets(folder):
    checksums = [ShardIndex.load(folder / name).checksum for name in ("shards", "distilled")]
    found = ShardDataSource(folder / "shards", folder / "distilled").checksum()
    assert found == "+".join(checksums) == data_checksum(folder / "shards", folder / "distilled")
    assert ShardDataSource(folder / "shards").checksum() == checksums[0]


@pytest.mark.parametrize(
    ("probability", "distillation", "message"),
    [
        (0.75, None, "there is no distillation set; name its shards with --distillation-data-dir"),
        (0.0, "distilled", "would not be used, because selection.distillation_probability is 0"),
    ],
)
def test_a_probability_and_a_distillation_set_need_each_other(
    folder, probability, distillation, message
):
    selection = dataclasses.replace(SELECTION, distillation_probability=probability)
    with pytest.raises(ValueError, match=message):
        open_data(folder, config(selection=selection), distillation)


def test_the_probability_is_checked():
    with pytest.raises(ValueError, match=r"distillation_probability=1.5: expected 0 to 1"):
        DataSelectionConfig(distillation_probability=1.5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("9001_A", "9001_A (validation chain 9001_A has this id)"),
        ("other_A", "other_A (has the sequence of validation chain 9001_A)"),
    ],
)
def test_distilled_validation_chains_are_refused(folder, name, reason):
    structures = [
        predicted(ShardReader(folder / "shards"), "9001_A", name=name),
        predicted(ShardReader(folder / "more" / "shards"), "900b_A"),
    ]
    distill(folder, f"leak_{name}", structures)
    with pytest.raises(ValueError, match="distill --validation-data-dir DIR") as caught:
        open_data(folder, config(), f"leak_{name}")
    assert f"has 1 chains that this run must not train on: {reason}; make" in str(caught.value)


def test_distilled_chains_of_a_held_out_cluster_are_refused(folder, tmp_path):
    """The two chains of the validation family are cluster 0 of the training data."""
    structure = predicted(ShardReader(folder / "shards"), "9005_A", name="relative_A")
    table = tmp_path / "clusters.txt"
    table.write_text("9000_1 9001_1 RELATIVE_A\n")
    distill(folder, "relatives", [structure], "--clusters", table)
    held_out = dataclasses.replace(SELECTION, exclude_validation=True)
    with pytest.raises(ValueError, match=r"relative_A \(in the cluster of 900._A, which is held"):
        open_data(folder, config(selection=held_out), "relatives")
    # Without held-out clusters, the benchmark trains on relatives of validation chains.
    open_data(folder, config(), "relatives").close()


def test_a_distilled_copy_of_a_held_out_chain_is_refused(folder):
    """9000_A is no validation chain, but in the cluster of one."""
    structure = predicted(ShardReader(folder / "shards"), "9000_A", name="copy_A")
    distill(folder, "copies", [structure])
    held_out = dataclasses.replace(SELECTION, exclude_validation=True)
    with pytest.raises(ValueError, match=r"copy_A \(has the sequence of held-out chain 9000_A\)"):
        open_data(folder, config(selection=held_out), "copies")
    open_data(folder, config(), "copies").close()


def test_messages_name_the_data_set_of_a_sample(folder):
    sampler = TrainingSampler(
        ["9002_A"],
        [1.0],
        seed=5,
        distilled=open_distillation(folder / "shards", folder / "distilled", SELECTION),
        distillation_probability=0.75,
    )
    readers = tuple(ShardReader(folder / name) for name in ("shards", "distilled"))
    task = TrainingTask(readers=readers, sampler=sampler, data=config().data, stream=SampleStream())
    texts = [task.describe(position) for position in range(12)]
    assert any(" (training set, seed " in text for text in texts)
    assert any(" (distillation set, seed " in text for text in texts)


def test_deep_alignments_of_distilled_samples_are_subsampled(folder):
    reader = ShardReader(folder / "more" / "shards")
    name = max(reader.index.chains, key=lambda chain: chain.num_alignments).chain_id
    num_rows = reader.alignment(name).num_sequences
    sizes = {"crop_size": 40, "max_msa_clusters": 4, "max_extra_msa": 100}

    def sample(*, rows, seed=1, is_distilled=True):
        data = DataConfig(distillation_max_msa_rows=rows, **sizes)
        return make_training_sample(reader, name, seed=seed, config=data, is_distilled=is_distilled)

    def same(one, other):
        return all(np.array_equal(one[key], other[key], equal_nan=True) for key in one)

    few = sample(rows=10)
    assert (few["num_clusters"], few["num_extra"]) == (4, 6)
    assert same(few, sample(rows=10))
    assert not same(few, sample(rows=10, seed=2))
    whole = sample(rows=num_rows)
    assert whole["num_extra"] == num_rows - 4
    assert same(whole, sample(rows=1, is_distilled=False))
