"""Prefetchers: same batches in the same order, errors in order, and clean shutdown."""

import functools
import importlib.util
import itertools
import threading

import pytest
import torch

from openfold_opt.loader import device_prefetcher as prefetcher_module
from openfold_opt.loader.batch import LoadedBatch
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.device_prefetcher import build_prefetcher
from openfold_opt.loader.sample import choose_for_training, encode_sample
from openfold_opt.loader.wire_format import stack_samples
from tests.support.devices import DEVICES
from tests.support.raw_samples import make_raw

HAS_DALI = (
    importlib.util.find_spec("nvidia") is not None
    and importlib.util.find_spec("nvidia.dali") is not None
)
needs_dali = pytest.mark.skipif(
    not HAS_DALI, reason="DALI is not installed (pip install nvidia-dali-cuda130)"
)
KINDS = ["direct", "pinned", pytest.param("dali", marks=needs_dali)]


@functools.cache
def arrays(num_res, num_rows):
    config = DataConfig(
        crop_size=num_res,
        max_msa_clusters=4,
        max_extra_msa=5,
        max_templates=2,
        max_recycling_iterations=1,
    )
    raw = make_raw(num_res=num_res, num_rows=num_rows, num_templates=2)
    return stack_samples(
        [encode_sample(raw, choose_for_training(raw, seed=seed, config=config)) for seed in (1, 2)]
    )


def batch(number):
    """Return a batch of two samples; length, extra rows and deletions vary with the number."""
    return LoadedBatch(
        features=arrays(7 + number % 3, 9 if number % 2 else 1),
        chain_ids=(f"c{number}",),
        sample_seeds=(number,),
        slots=torch.tensor([2, 3]),
        step=number,
        micro=0,
        position=number,
        queue_depth=1,
        reorder_distance=0,
    )


def prefetched(batches, kind, *, device="cpu", depth=2):
    return build_prefetcher(
        iter(batches),
        device=torch.device(device),
        config=LoaderConfig(prefetch=kind, prefetch_depth=depth),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_delivered_in_order_and_unchanged(kind):
    prefetcher = prefetched(map(batch, range(7)), kind)
    found = list(prefetcher)
    prefetcher.close()
    assert [item.step for item in found] == list(range(7))
    for number, item in enumerate(found):
        expected = batch(number)
        assert (item.chain_ids, item.position, item.slots.tolist()) == (
            expected.chain_ids,
            number,
            [2, 3],
        )
        assert_features(item.features, expected)


def assert_features(features, wire_batch, **tolerance):
    expected = decode_batch(wire_batch.features)
    assert list(features) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            features[name].cpu(),
            tensor,
            **(tolerance or {"rtol": 0, "atol": 0}),
            equal_nan=True,
            msg=name,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_error_is_raised_after_the_batches_before_it(kind):
    def failing():
        yield batch(0)
        yield batch(1)
        raise OSError("the shard is gone")

    prefetcher = prefetched(failing(), kind)
    assert [next(prefetcher).step, next(prefetcher).step] == [0, 1]
    with pytest.raises(OSError, match="the shard is gone"):
        next(prefetcher)
    prefetcher.close()


@pytest.mark.parametrize("kind", KINDS)
def test_closing_an_endless_stream_leaves_no_thread(kind):
    threads = threading.active_count()
    prefetcher = prefetched(map(batch, itertools.count()), kind)
    next(prefetcher)
    prefetcher.close()
    prefetcher.close()
    assert threading.active_count() == threads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3])
def test_prefetcher_can_be_closed_at_any_time(kind, depth):
    for num_batches in range(6):
        prefetcher = prefetched(map(batch, range(num_batches)), kind, depth=depth)
        threading.Event().wait(0.05)
        prefetcher.close()
        prefetcher.close()
        if kind != "direct":
            with pytest.raises(RuntimeError, match="closed"):
                next(prefetcher)


def test_number_of_prefetched_batches_is_bounded():
    taken = []

    def counted():
        for number in itertools.count():
            taken.append(number)
            yield batch(number)

    prefetcher = prefetched(counted(), "pinned", depth=3)
    next(prefetcher)
    threading.Event().wait(0.3)
    # One batch is delivered, three are in the queue, and the thread holds one.
    assert len(taken) == 5
    prefetcher.close()


def test_auto_selects_the_direct_prefetcher_on_cpu():
    assert type(prefetched([batch(0)], "auto")).__name__ == "DirectPrefetcher"


def test_missing_dali_is_an_error():
    if HAS_DALI:
        pytest.skip("DALI is installed")
    with pytest.raises(ValueError, match='prefetch is "dali".*install nvidia-dali'):
        prefetched([batch(0)], "dali")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_on_any_device_are_the_same(kind, device):
    prefetcher = prefetched(map(batch, range(12)), kind, device=device)
    for number, item in enumerate(prefetcher):
        assert item.features["msa_feat"].device.type == item.slots.device.type == device
        assert_features(item.features, batch(number), rtol=1e-5, atol=1e-5)
    assert number == 11
    prefetcher.close()


def delay(device):
    """Keep the current stream busy for some milliseconds; the host does not wait."""
    if device == "cuda":
        torch.cuda._sleep(20_000_000)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_neither_read_too_early_nor_overwritten_too_soon(kind, device, monkeypatch):
    """Delay both streams to reveal missing synchronization.

    A delay on the stream that fills a batch reveals a reader that does not wait for it. A delay on
    the stream that reads reveals memory that is reused before it was read.
    """
    original = prefetcher_module.decode_batch

    def slow_decode(arrays, **options):
        delay(device)
        return original(arrays, **options)

    monkeypatch.setattr(prefetcher_module, "decode_batch", slow_decode)
    prefetcher = prefetched(map(batch, range(12)), kind, device=device)
    copies = []
    for item in prefetcher:
        delay(device)
        copies.append({name: tensor.clone() for name, tensor in item.features.items()})
        # From here on, the next batches may reuse its memory.
        del item
    prefetcher.close()
    assert len(copies) == 12
    for number, features in enumerate(copies):
        assert_features(features, batch(number), rtol=1e-5, atol=1e-5)
