"""`perf loader --only staging`: all prefetchers, alternating, in one record."""

import json

import numpy as np
import torch

from benchmark.__main__ import main
from benchmark.perf import prefetch
from benchmark.perf.prefetch import PrefetchPlan, measure_prefetch, wire_batches
from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.train.synthetic_features import synthetic_batch
from tests.loader.test_device_prefetcher import HAS_DALI

OPTIONS = [
    "--only",
    "staging",
    "--crop",
    "8",
    "--staging-steps",
    "2",
    "--rounds",
    "2",
    "--staging-step-ms",
    "1",
]


def test_all_prefetchers_are_in_one_record(tmp_path, capsys):
    record = tmp_path / "loader.json"
    assert main(["perf", "loader", *OPTIONS, "--json", str(record)]) == 0
    text = capsys.readouterr().out
    metrics = json.loads(record.read_text())["figures"]["staging"]
    expected = {"direct", "dali"} | ({"pinned"} if torch.cuda.is_available() else set())
    assert set(metrics["seconds"]) == expected and "direct" in text and "dali" in text
    assert len(metrics["seconds"]["direct"]) == 4
    assert len(metrics["seconds"]["dali"]) == (4 if HAS_DALI else 0)
    assert ("dali" in metrics["unavailable"]) != HAS_DALI


def test_the_order_of_the_prefetchers_alternates(monkeypatch):
    order = []
    monkeypatch.setattr(
        prefetch, "_waits", lambda batches, kind, plan, device: order.append(kind) or [0.0]
    )
    plan = PrefetchPlan(crop_size=8, rounds=2, steps=1, step_seconds=0.0, depth=2)
    saved = []
    measure_prefetch(plan, device=torch.device("cpu"), save=saved.append)
    assert order == ["direct", "dali", "dali", "direct"] and len(saved) == 4


def test_batches_have_training_sizes():
    config = DataConfig(crop_size=8)
    features = decode_batch(next(wire_batches(config)).features)
    expected = synthetic_batch(config, batch_size=1, num_passes=config.num_passes)
    assert {name: value.shape for name, value in features.items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert all(np.isfinite(value.float().numpy()).all() for value in features.values())
