"""Measure how long a training step waits for its batch, with each prefetcher.

`perf loader` calls this. openfold_opt.loader.device_prefetcher describes the prefetchers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.perf.tools.timing_stats import TimingStats, table
from data_prep.progress import tracked
from openfold_opt.loader.batch import LoadedBatch, WireFeatures
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.device_prefetcher import build_prefetcher
from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.loader.sample import choose_for_training, encode_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.sparse_deletions import SparseDeletions

_SAMPLES = 4
"""Different samples, delivered cyclically."""
_ROWS = 2000
"""Alignment rows of a sample's chain."""
_UNTIMED_BATCHES = 2


@dataclass(frozen=True, kw_only=True)
class PrefetchPlan:
    """Sizes and counts of the measurement."""

    crop_size: int
    rounds: int
    """Rounds in which the prefetchers alternate."""
    steps: int
    """Timed batches of each prefetcher and round."""
    step_seconds: float
    """Duration of a training step, during which batches are prepared ahead."""
    depth: int
    """Number of batches prepared ahead, except for "direct"."""


@dataclass(frozen=True, kw_only=True)
class PrefetchMetrics:
    """Waiting times of the timed steps, with the plan."""

    crop_size: int
    step_seconds: float
    depth: int
    device: str
    seconds: dict[str, list[float]]
    """Prefetcher -> waiting times."""
    unavailable: dict[str, str]
    """Prefetcher -> reason why it was not measured."""


def random_chain(*, num_res: int, num_rows: int, num_templates: int, seed: int) -> RawFeatures:
    """Return a chain of random residues with an alignment and templates."""
    rng = np.random.default_rng(seed)
    msa = rng.integers(0, 20, (num_rows, num_res), dtype=np.uint8)
    shape = (num_templates, num_res, 37)
    return RawFeatures(
        aatype=msa[0].astype(np.int64),
        all_atom_positions=rng.normal(size=(num_res, 37, 3)).astype(np.float32),
        all_atom_mask=np.ones((num_res, 37), np.float32),
        resolution=2.0,
        msa=msa,
        deletions=SparseDeletions.from_dense(
            rng.integers(0, 9, msa.shape) * (rng.random(msa.shape) < 0.05)
        ),
        profile=np.full((num_res, 22), 1 / 22, np.float32),
        templates=Templates(
            aatype=rng.integers(0, 20, shape[:2]),
            all_atom_positions=rng.normal(size=(*shape, 3)).astype(np.float32),
            all_atom_mask=np.ones(shape, np.float32),
        ),
    )


def wire_batches(config: DataConfig) -> Iterator[LoadedBatch[WireFeatures]]:
    """Return an infinite iterator over batches of one sample, all prepared in advance."""
    arrays = []
    for seed in range(_SAMPLES):
        raw = random_chain(
            num_res=2 * config.crop_size,
            num_rows=_ROWS,
            num_templates=config.max_templates,
            seed=seed,
        )
        arrays.append(
            stack_samples([encode_sample(raw, choose_for_training(raw, seed=seed, config=config))])
        )
    return (_wire_batch(arrays[number % _SAMPLES], number) for number in itertools.count())


def _wire_batch(arrays: WireFeatures, number: int) -> LoadedBatch[WireFeatures]:
    return LoadedBatch(
        features=arrays,
        chain_ids=("random",),
        sample_seeds=(number,),
        slots=torch.zeros(1, dtype=torch.int64),
        step=number,
        micro=0,
        position=number,
        queue_depth=1,
        reorder_distance=0,
    )


def measure_prefetch(
    plan: PrefetchPlan, *, device: torch.device, save: Callable[[PrefetchMetrics], None]
) -> PrefetchMetrics:
    """Measure the wait of each timed step with each prefetcher.

    The prefetchers alternate; their order is reversed in every other round.

    Args:
        plan: Sizes and counts.
        device: Device of the batches. The prefetcher "pinned" is measured only on a GPU.
        save: Called with the metrics so far after every round of a prefetcher.
    """
    config = DataConfig(crop_size=plan.crop_size)
    kinds = ["direct", *(["pinned"] if device.type == "cuda" else []), "dali"]
    metrics = PrefetchMetrics(
        crop_size=plan.crop_size,
        step_seconds=plan.step_seconds,
        depth=plan.depth,
        device=str(device),
        seconds={kind: [] for kind in kinds},
        unavailable={},
    )
    batches = wire_batches(config)
    for number in tracked(range(plan.rounds), what="prefetchers", unit="round"):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            if kind in metrics.unavailable:
                continue
            try:
                metrics.seconds[kind] += _waits(batches, kind, plan, device)
            except ValueError as error:
                metrics.unavailable[kind] = str(error)
            save(metrics)
    return metrics


def _waits(
    batches: Iterator[LoadedBatch[WireFeatures]],
    kind: str,
    plan: PrefetchPlan,
    device: torch.device,
) -> list[float]:
    count = plan.steps + _UNTIMED_BATCHES
    # A prefetcher takes batches ahead of their use, so it gets a finite part of the stream.
    config = LoaderConfig(prefetch=kind, prefetch_depth=plan.depth)
    prefetch = build_prefetcher(itertools.islice(batches, count), device=device, config=config)
    seconds = []
    try:
        for _ in range(count):
            time.sleep(plan.step_seconds)
            requested = time.perf_counter()
            batch = next(prefetch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - requested)
            del batch
    finally:
        prefetch.close()
    return seconds[_UNTIMED_BATCHES:]


def report_prefetch(metrics: PrefetchMetrics) -> str:
    """Format a row for each prefetcher."""
    direct = TimingStats.of(metrics.seconds["direct"])
    rows = []
    for kind, seconds in metrics.seconds.items():
        if not seconds:
            rows.append([kind, metrics.unavailable.get(kind, "not measured"), "", ""])
            continue
        stats = TimingStats.of(seconds)
        ratio = stats.ratio_to(direct)
        rows.append([kind, stats.text(2, scale=1e3), f"{ratio.median:.2f}", str(stats.count)])
    header = ["prefetcher", "wait for a batch, ms", "relative to direct", "batches"]
    return (
        f"steps of {1e3 * metrics.step_seconds:.0f} ms on {metrics.device}, "
        f"crop {metrics.crop_size}, {metrics.depth} batches ahead\n\n"
        f"{table(rows, header=header)}"
    )


def summarize_prefetch(metrics: PrefetchMetrics) -> str:
    """Return one line with the median wait of each prefetcher that was measured."""
    waits = [
        f"{kind} {1e3 * TimingStats.of(seconds).median:.2f} ms"
        for kind, seconds in metrics.seconds.items()
        if seconds
    ]
    return f"wait for a batch on {metrics.device}: {', '.join(waits)}"
