"""The loaders on converted shards: independence of ranks and workers, resuming, and errors."""

import os
import shutil

import numpy as np
import pytest
import torch

from data_prep.__main__ import main as data_prep
from data_prep.communicator import SerialCommunicator
from data_prep.convert.pipeline import convert
from data_prep.convert.raw_source import RawSource
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.loader import EvaluationLoader, TrainingLoader
from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.loader.retry_policy import LoaderError
from openfold_opt.loader.sampler import SampleStream, TrainingSampler
from openfold_opt.protein.features import check_features
from openfold_opt.protein.reader import ShardReader

SMALL = DataConfig(crop_size=24, max_msa_clusters=5, max_extra_msa=7, max_templates=2)
CHAINS = ("1aki_A", "3o5r_A")


def loader_config(num_workers, **changes):
    return LoaderConfig(num_workers=num_workers, timeout_seconds=60.0, **changes)


def training_samples(data_dir, stream, *, config, num_micro, first_step=1):
    """Return (step, slot) -> (chain, seed, features) of the first micro-batches of one rank."""
    sampler = TrainingSampler(CHAINS, [1.0, 2.0], seed=9)
    samples = {}
    with TrainingLoader(
        data_dir, sampler, data=SMALL, loader=config, stream=stream, first_step=first_step
    ) as batches:
        for _ in range(num_micro):
            batch = next(batches)
            decoded = decode_batch(batch.features)
            check_features(decoded, batched=True)
            for index, slot in enumerate(batch.slots.tolist()):
                features = {name: tensor[index].clone() for name, tensor in decoded.items()}
                samples[batch.step, slot] = (
                    batch.chain_ids[index],
                    batch.sample_seeds[index],
                    features,
                )
    return samples


def assert_same(one, other):
    assert set(one) == set(other)
    for key, (chain, seed, features) in one.items():
        assert (chain, seed) == other[key][:2]
        for name, tensor in features.items():
            assert torch.equal(tensor.nan_to_num(), other[key][2][name].nan_to_num()), name


@pytest.fixture(scope="module")
def expected(quirks_dir):
    """Samples of two steps of four, prepared in this process."""
    return training_samples(
        quirks_dir, SampleStream(local_batch_size=4), config=loader_config(0), num_micro=2
    )


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize(
    ("size", "local_batch_size", "accumulation"), [(1, 4, 1), (2, 2, 1), (2, 1, 2), (1, 1, 4)]
)
def test_stream_does_not_depend_on_ranks_or_workers(
    quirks_dir, expected, num_workers, size, local_batch_size, accumulation
):
    found = {}
    for rank in range(size):
        stream = SampleStream(
            rank=rank, size=size, local_batch_size=local_batch_size, accumulation=accumulation
        )
        found |= training_samples(
            quirks_dir, stream, config=loader_config(num_workers), num_micro=2 * accumulation
        )
    assert_same(found, expected)


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_stream_does_not_depend_on_the_start_method(quirks_dir, expected, start_method):
    config = loader_config(1, start_method=start_method)
    assert_same(
        training_samples(quirks_dir, SampleStream(local_batch_size=4), config=config, num_micro=2),
        expected,
    )


def test_resumed_stream_starts_at_a_later_step(quirks_dir, expected):
    stream = SampleStream(local_batch_size=2, accumulation=2)
    resumed = training_samples(
        quirks_dir, stream, config=loader_config(2), num_micro=2, first_step=2
    )
    assert_same(resumed, {key: sample for key, sample in expected.items() if key[0] == 2})


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_yields_the_same_whole_chains_in_every_iteration(quirks_dir, num_workers):
    loader = EvaluationLoader(quirks_dir, CHAINS, data=SMALL, loader=loader_config(num_workers))
    reader = ShardReader(quirks_dir)
    first, second = list(loader), list(loader)
    assert [batch.chain_ids for batch in first] == [(chain,) for chain in CHAINS]
    for one, other in zip(first, second):
        features = decode_batch(one.features)
        sizes = check_features(features, batched=True)
        assert sizes["batch"] == 1
        assert sizes["N_res"] == reader.entry(one.chain_ids[0]).sequence_length
        for name, array in one.features.items():
            np.testing.assert_array_equal(array, other.features[name], err_msg=name)


def test_evaluation_without_chains_is_empty(quirks_dir):
    assert list(EvaluationLoader(quirks_dir, (), data=SMALL, loader=loader_config(2))) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_names_an_unreadable_sample(quirks_dir, tmp_path, num_workers):
    data_dir = tmp_path / "data"
    shutil.copytree(quirks_dir, data_dir)
    for shard in data_dir.glob("*-*.h5"):
        os.truncate(shard, shard.stat().st_size // 2)
    sampler = TrainingSampler(CHAINS, [1.0, 2.0], seed=9)
    sample = sampler.sample(0)
    with TrainingLoader(
        data_dir, sampler, data=SMALL, loader=loader_config(num_workers), stream=SampleStream()
    ) as batches:
        expected = rf"training step 1, micro-batch 1: {sample.chain_id} \(seed {sample.seed}\)"
        with pytest.raises(LoaderError, match=expected):
            next(batches)


def test_error_names_an_unknown_chain(quirks_dir):
    loader = EvaluationLoader(quirks_dir, ("9zzz_A",), data=SMALL, loader=loader_config(1))
    with pytest.raises(LoaderError, match="validation chain 9zzz_A"):
        list(loader)


def test_run_resumed_within_a_window_uses_each_sample_once(quirks_dir):
    """Batches that were prepared or delivered but not used by a step are delivered again."""
    sampler = TrainingSampler(CHAINS, [1.0, 2.0], seed=9)
    stream = SampleStream(local_batch_size=1, accumulation=2)
    config = loader_config(2, window=6, prefetch_per_worker=4)

    def take(loader, *, steps, ahead):
        batches = [next(loader) for _ in range(2 * steps + ahead)]
        for batch in batches[: 2 * steps]:
            loader.mark_consumed(batch.position)
        return batches[: 2 * steps]

    with TrainingLoader(quirks_dir, sampler, data=SMALL, loader=config, stream=stream) as loader:
        used = take(loader, steps=4, ahead=3)
        state = loader.state()
    assert state.num_consumed == 8
    with TrainingLoader(
        quirks_dir, sampler, data=SMALL, loader=config, stream=stream, first_step=5, start=state
    ) as loader:
        used += take(loader, steps=10, ahead=0)
        state = loader.state()
    positions = [batch.position for batch in used]
    assert len(set(positions)) == len(positions) == 28
    assert set(range(state.low)) <= set(positions)
    for index, batch in enumerate(used):
        assert (batch.step, batch.micro) == (1 + index // 2, index % 2)
        assert batch.slots.tolist() == [index % 2]
        sample = sampler.sample(batch.position)
        assert (batch.chain_ids[0], batch.sample_seeds[0]) == (sample.chain_id, sample.seed)


def test_skipped_batch_counts_as_used(quirks_dir, tmp_path):
    data_dir = tmp_path / "data"
    shutil.copytree(quirks_dir, data_dir)
    sampler = TrainingSampler((*CHAINS, "9zzz_A"), [1.0, 1.0, 1.0], seed=2)
    missing = [position for position in range(12) if sampler.sample(position).chain_id == "9zzz_A"]
    assert missing
    messages = []
    config = loader_config(2, error_budget=len(missing), max_attempts=2)
    with TrainingLoader(
        data_dir, sampler, data=SMALL, loader=config, stream=SampleStream(), report=messages.append
    ) as loader:
        positions = []
        while not positions or positions[-1] < 11:
            positions.append(next(loader).position)
            loader.mark_consumed(positions[-1])
        assert loader.state() == StreamState(low=positions[-1] + 1)
    assert sorted(positions + missing) == list(range(positions[-1] + 1))
    assert len(messages) == len(missing)
    assert all("9zzz_A" in message for message in messages)


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    """Twelve synthetic chains in several shards."""
    folder = tmp_path_factory.mktemp("many")
    assert data_prep(["synthesize", "--out", str(folder / "raw"), "--chains", "12"]) == 0
    source = RawSource(
        pdb_mmcif=folder / "raw" / "pdb_mmcif",
        open_protein_set=folder / "raw" / "open_protein_set",
        shard_size_bytes=12_000,
    )
    convert(source, folder / "shards", SerialCommunicator())
    assert len(list((folder / "shards").glob("alignments-*.h5"))) >= 3
    return folder / "shards"


@pytest.mark.parametrize("window", [0, 8])
def test_errors_of_a_corrupt_shard_count_against_the_budget(many_shards, tmp_path, window):
    data_dir = tmp_path / "data"
    shutil.copytree(many_shards, data_dir)
    corrupt = data_dir / "alignments-00001.h5"
    os.truncate(corrupt, corrupt.stat().st_size - 1)
    index = ShardReader(data_dir).index
    number = [shard.name for shard in index.shards].index(corrupt.name)
    chains = [chain.chain_id for chain in index.chains]
    lost = {chain.chain_id for chain in index.chains if chain.alignment_shard == number}
    assert 0 < len(lost) < len(chains)
    sampler = TrainingSampler(chains, [1.0] * len(chains), seed=4)
    expected = [position for position in range(200) if sampler.sample(position).chain_id in lost][
        :3
    ]
    messages, found = [], []
    config = loader_config(2, window=window, error_budget=2, max_attempts=2)
    with TrainingLoader(
        data_dir, sampler, data=SMALL, loader=config, stream=SampleStream(), report=messages.append
    ) as loader:
        with pytest.raises(LoaderError, match=r"alignments-00001.h5(.|\n)*error budget is 2"):
            while True:
                found.append(next(loader))
    assert not {batch.chain_ids[0] for batch in found} & lost
    assert len(messages) == 2
    for message, number in zip(sorted(messages), ("number 1", "number 2")):
        assert (
            number in message
            and "alignments-00001.h5" in message
            and any(chain_id in message for chain_id in lost)
        )
    if window == 0:
        assert [batch.position for batch in found] == [
            p for p in range(expected[2]) if p not in expected
        ]
